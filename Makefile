# Each line of `make help` below is a target. All but those that end something install what is missing first;
# that is quick when nothing is.

.PHONY: help setup guest demo demo-shell demo-down cluster cluster-down test check fuzz bench lock
.NOTPARALLEL:

help:
	@echo 'make setup        install what is missing (Debian packages, .venv, Go, terraform), build the provider'
	@echo 'make demo         terraform apply boots a real machine, in a world of its own'
	@echo 'make demo-shell   a shell in that world'
	@echo 'make demo-down    end it, without a trace'
	@echo 'make cluster      three nodes, an etcd of three, two APIs, in a world of their own'
	@echo 'make cluster-down end them, without a trace'
	@echo 'make test         checks and all tests'
	@echo 'make check        the checks alone'
	@echo 'make fuzz         random operations, ten thousand steps and more, beside a model of the cloud'
	@echo 'make bench        how fast, how idle'

setup:
	@tools/setup

# The disk image that the demo and the machine tests boot.
guest: setup
	@tools/guest/build .cache/guest/guest.qcow2

demo: guest
	@tools/demo up

demo-shell: setup
	@tools/demo shell

demo-down:
	@tools/demo down

cluster: guest
	@tools/cluster up

cluster-down:
	@tools/cluster down

test: guest
	@.venv/bin/python tools/test

check: setup
	@.venv/bin/python tools/test check

fuzz: setup
	@FUZZ_STEPS=10000 .venv/bin/python -m pytest tests/fuzz -q -p no:randomly

bench: guest
	@.venv/bin/python -m pytest tests/bench -q -s -p no:randomly

# requirements.lock from pyproject.toml, for every Python from 3.11 on; needs uv. The three names build what comes as source.
# And of it deploy/requirements.lock: what an installation has. libvirt's bindings are Debian's there, so no compiler is needed.
lock:
	@printf 'hatchling\neditables\nsetuptools\n' | uv pip compile --universal --python-version 3.11 --all-extras \
	    --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock pyproject.toml -
	@printf 'hatchling\nsetuptools\n' | uv pip compile --universal --python-version 3.11 --extra hypervisor --constraint requirements.lock \
	    --no-emit-package libvirt-python --generate-hashes --no-emit-index-url --no-header --quiet \
	    --output-file deploy/requirements.lock pyproject.toml -
