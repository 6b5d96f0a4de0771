"""What the configuration may say, and how it is told what it may not: by the key, in one sentence."""
from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from wisp.config import SECTIONS, Wrong, load, parse

HANDBOOK = Path(__file__).resolve().parents[2] / "docs" / "handbook" / "configuration.md"
STORE = '[store]\nendpoints = ["127.0.0.1:2379"]\n'
NODE = '[node]\nname = "n1"\nunderlay = "192.0.2.1"\n'


def told(written: str, *needed: str) -> str:
    with pytest.raises(Wrong) as wrong:
        parse(written, *needed)
    return str(wrong.value)


def test_what_is_written_is_what_there_is(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    config = parse(f"""
        [store]
        endpoints = ["172.30.0.1:2379", "172.30.0.2:2379", "172.30.0.3:2379"]
        ca = "{tmp_path}/ca"
        cert = "{tmp_path}/cert"
        key = "{tmp_path}/key"
        [api]
        listen = "[::1]:7480"
        metrics = "127.0.0.1:7481"
        name = "front"
        [node]
        name = "n1"
        state = "/srv/wisp"
        underlay = "172.30.0.11"
        egress = "eth1"
        libvirt = "qemu+unix:///system?socket=/run/n1/libvirt-sock"
        virt_type = "qemu"
        carries = ["instances"]
        metrics = "127.0.0.1:7482"
    """, "api", "node")
    assert config.store.endpoints == ("172.30.0.1:2379", "172.30.0.2:2379", "172.30.0.3:2379")
    assert config.store.ca == tmp_path / "ca" and config.store.key == tmp_path / "key"
    assert config.api and (config.api.listen, config.api.metrics, config.api.name) == ("[::1]:7480", "127.0.0.1:7481", "front")
    assert config.node and (config.node.state, config.node.egress) == (Path("/srv/wisp"), "eth1")
    assert (config.node.virt_type, config.node.carries) == ("qemu", ("instances",))


def test_what_is_left_out_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="Rack1.example.org"))
    config = parse(f'{STORE}[api]\n[node]\nunderlay = "192.0.2.1"\n')
    assert config.api and (config.api.listen, config.api.metrics, config.api.name) == ("127.0.0.1:7480", None, "rack1")
    assert config.node and (config.node.name, config.node.state, config.node.egress) == ("rack1", Path("/var/lib/wisp"), None)
    assert (config.node.libvirt, config.node.virt_type, config.node.metrics) == ("qemu:///system", "auto", None)
    assert config.node.carries == ("instances", "gateways")
    assert parse(STORE).node is None


def test_a_host_whose_name_no_node_can_have_is_asked_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="4_you"))
    assert told(f"{STORE}[api]").startswith("name is not written, and this host's own, '4_you', will not do")
    assert parse(f'{STORE}[api]\nname = "n4"').api


@pytest.mark.parametrize(("written", "sentence"), [
    ("", "the section [store] is missing"),
    ("store = 1", "store must be a section: [store]"),
    ("[stroe]", "stroe is not known here; there are [store], [api], [node]"),
    (f"{STORE}tls = true", "store.tls is not known; [store] has endpoints, ca, cert, key, insecure"),
    ("[store]", "store.endpoints is missing"),
    (f"{STORE}[node]", "node.underlay is missing"),
    (f'{STORE}insecure = "yes"', "store.insecure must be true or false; it is 'yes'"),
    (f"{STORE}[api]\nlisten = 7480", "api.listen must be HOST:PORT; it is 7480"),
    (f'{STORE}[api]\nlisten = "here:70000"', "api.listen must be HOST:PORT; it is 'here:70000'"),
    (f'{STORE}[api]\nmetrics = ""', "api.metrics must be HOST:PORT; it is ''"),
    (f'{STORE}[api]\nname = "N1"', "api.name must be a name: lower-case letters, digits and hyphens, a letter first, at most 63; it is 'N1'"),
    (f'{STORE}[node]\nunderlay = "n1.example"', "node.underlay must be an IPv4 address; it is 'n1.example'"),
    (f'{STORE}{NODE}state = "var"', "node.state must be an absolute path; it is 'var'"),
    (f'{STORE}{NODE}libvirt = ""', "node.libvirt must be text that is not empty; it is ''"),
    (f'{STORE}{NODE}egress = "{"x" * 16}"', f'node.egress must be the name of a link, or "" for none; it is \'{"x" * 16}\''),
    (f'{STORE}{NODE}virt_type = "xen"', "node.virt_type must be one of auto, kvm, qemu; it is 'xen'"),
    (f'{STORE}{NODE}carries = ["disks"]', "node.carries must be a list of instances and gateways, or of one of them; it is ['disks']"),
    (f'{STORE}{NODE}carries = ["instances", "instances"]',
     "node.carries must be a list of instances and gateways, or of one of them; it is ['instances', 'instances']"),
])
def test_what_will_not_do_is_named_by_its_key(written: str, sentence: str) -> None:
    assert told(written) == sentence


@pytest.mark.parametrize("written", ['"127.0.0.1:2379"', "[]", '["localhost:2379"]', '["127.0.0.1"]', '["[::1]:2379"]', "[2379]",
                                     str([f"127.0.0.{n}:2379" for n in range(6)])])
def test_the_store_is_at_one_to_five_addresses_and_no_names(written: str) -> None:
    assert told(f"[store]\nendpoints = {written}").startswith("store.endpoints must be one to five of ADDRESS:PORT")


def test_a_store_on_the_network_takes_tls_unless_it_says_otherwise(tmp_path: Path) -> None:
    away = '[store]\nendpoints = ["127.0.0.1:2379", "192.0.2.9:2379"]\n'
    assert told(away).startswith("store.endpoints: 192.0.2.9:2379 is not on this machine's loopback, so it takes TLS")
    assert parse(f"{away}insecure = true").store.ca is None
    (tmp_path / "pem").touch()
    tls = [f'{name} = "{tmp_path}/pem"' for name in ("ca", "cert", "key")]
    assert parse(away + "\n".join(tls)).store.cert == tmp_path / "pem"
    assert told(away + tls[0]).startswith("store.ca, store.cert and store.key go together")
    assert told("\n".join([away, *tls, "insecure = true"])).endswith("without store.insecure")


def test_a_file_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    assert told(f'{STORE}ca = "{tmp_path}/ca.pem"') == \
        f"store.ca must be a file that can be read: No such file or directory; it is '{tmp_path}/ca.pem'"


def test_a_section_that_is_needed_must_be_there() -> None:
    assert told(STORE, "api") == "the section [api] is missing"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content, said in ((b"[store", "Expected ']'"), (b"\xff", "decode"), (STORE.encode(), "the section [node] is missing")):
        (tmp_path / "wisp.toml").write_bytes(content)
        with pytest.raises(Wrong, match=r"wisp\.toml: ") as wrong:
            load(tmp_path / "wisp.toml", "node")
        assert said in str(wrong.value)
    with pytest.raises(Wrong, match=r"none\.toml: No such file or directory"):
        load(tmp_path / "none.toml")


def test_the_handbook_has_every_key_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+\.\w+)` \|", HANDBOOK.read_text(), re.MULTILINE)
    known = [f"{title}.{key}" for title, kind in SECTIONS.items() for key in kind.__dataclass_fields__]
    assert rows == known
