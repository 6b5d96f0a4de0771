"""What is taken for a document, and what is refused with its place and a sentence that repeats no secret."""
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wisp import catalogue, dialect
from wisp.errors import Problem

CATALOGUE = catalogue.load()
SMALL: dict[str, Any] = {"cpus": 1, "memory_mib": 64, "disks": [{"size_gib": 1}]}


def refusal(raw: bytes) -> Problem:
    with pytest.raises(Problem) as refused:
        dialect.loads(raw)
    return refused.value


def faults(kind: str, spec: Any, **body: Any) -> list[tuple[str, str]]:
    try:
        CATALOGUE.kinds[kind].validate({"spec": spec, **body})
    except Problem as problem:
        assert problem.code == "invalid"
        return [(fault.pointer, fault.code) for fault in problem.faults]
    return []


@pytest.mark.parametrize("raw", [b"", b"{", b"nonsense", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": -Infinity}',
                                 b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b'"\\ud800"', b'{"a": 1} x', b"'a'"])
def test_what_is_not_this_apis_json_is_malformed(raw: bytes) -> None:
    assert refusal(raw).code == "malformed"


@pytest.mark.parametrize(("raw", "pointer"), [
    (b'{"a": 1, "c/d": 1, "c/d": 2}', "/c~1d"),
    (b'{"spec": {"cpus": 1, "cpus": 2}}', "/spec/cpus"),
    (b'[{"a": [{}, {"cpus": 1, "cpus": 1}]}]', "/0/a/1/cpus"),
    (b'{"b": {"x": {"k": 1, "k": 1}, "x": {}}}', "/b/x")])
def test_a_key_given_twice_is_refused_with_its_place(raw: bytes, pointer: str) -> None:
    assert refusal(raw).faults[0].pointer == pointer


def test_brackets_in_a_text_are_no_nesting() -> None:
    assert dialect.loads(json.dumps({"a": "[" * 1000 + '"\\'}).encode()) == {"a": "[" * 1000 + '"\\'}


@given(st.recursive(st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20))
def test_whatever_json_can_say_is_read_as_it_was_said(value: Any) -> None:
    assert dialect.loads(json.dumps(value).encode()) == value
    assert dialect.loads(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        dialect.loads(raw)
    except Problem as problem:
        assert problem.code == "malformed"


@pytest.mark.parametrize(("spec", "pointer", "rule"), [
    ({**SMALL, "cpus": 1.0}, "/spec/cpus", "type"),
    ({**SMALL, "cpus": True}, "/spec/cpus", "type"),
    ({**SMALL, "cpus": None}, "/spec/cpus", "type"),
    ({**SMALL, "cpus": "1"}, "/spec/cpus", "type"),
    ({**SMALL, "cpus": 0}, "/spec/cpus", "minimum"),
    ({**SMALL, "colour": "red"}, "/spec/colour", "unknown_field"),
    ({**SMALL, "a/b~c": 1}, "/spec/a~1b~0c", "unknown_field"),
    ({"memory_mib": 64, "disks": [{"size_gib": 1}]}, "/spec/cpus", "required"),
    ({**SMALL, "disks": []}, "/spec/disks", "minItems"),
    ({**SMALL, "disks": [{"size_gib": 1}] * 17}, "/spec/disks", "maxItems"),
    ({**SMALL, "disks": [{"size_gib": 1, "bus": "floppy"}]}, "/spec/disks/0/bus", "enum"),
    ({**SMALL, "networks": [{"network": "lan\n"}]}, "/spec/networks/0/network", "pattern"),
    ({**SMALL, "networks": [{"network": "lan", "mac": "01:00:00:00:00:01"}]}, "/spec/networks/0/mac", "pattern"),
    ({**SMALL, "networks": [{"network": "lan", "model": "virtio'/><x"}]}, "/spec/networks/0/model", "enum"),
    ({**SMALL, "networks": [{"network": "lan", "address": "10.0.0.1\n"}]}, "/spec/networks/0/address", "format"),
    ({**SMALL, "networks": [{"network": "lan", "address": "10.0.0.٣"}]}, "/spec/networks/0/address", "format"),
    ({**SMALL, "ssh_keys": ["a\nb"]}, "/spec/ssh_keys/0", "pattern"),
    ({**SMALL, "ssh_keys": ["a", "a"]}, "/spec/ssh_keys", "uniqueItems"),
    ({**SMALL, "ssh_keys": 1}, "/spec/ssh_keys", "type"),
    ([], "/spec", "type"),
])
def test_what_breaks_a_rule_is_pointed_at(spec: Any, pointer: str, rule: str) -> None:
    assert faults("instance", spec) == [(pointer, rule)]


def test_every_fault_is_told_at_once() -> None:
    assert len(faults("instance", {"cpus": 0, "memory_mib": 1, "disks": [{"size_gib": 0}], "x": 1})) == 4


@pytest.mark.parametrize(("metadata", "pointer"), [
    ({"a": 1}, "/metadata/a"), ({"a": "x" * 1025}, "/metadata/a"), ({"a b": "x"}, "/metadata"), ({"": "x"}, "/metadata"),
    ({str(n): "x" for n in range(65)}, "/metadata"), ("x", "/metadata")])
def test_tags_have_their_limits(metadata: Any, pointer: str) -> None:
    assert faults("network", {"cidr": "10.0.0.0/24"}, metadata=metadata)[0][0] == pointer


@pytest.mark.parametrize("body", [None, [], "x", {}, {"spec": {"cidr": "10.0.0.0/24"}, "status": {}}])
def test_a_body_has_a_spec_and_perhaps_metadata(body: Any) -> None:
    with pytest.raises(Problem) as refused:
        CATALOGUE.kinds["network"].validate(body)
    assert refused.value.code == "invalid"


@pytest.mark.parametrize(("cidr", "good"), [
    ("10.0.0.0/8", True), ("10.0.0.0/29", True), ("10.0.0.0/7", False), ("10.0.0.0/30", False), ("10.0.0.1/24", False), ("10.0.0.0", False),
    ("10.0.0.0/255.255.255.0", False), ("010.0.0.0/24", False), ("10.0.0.0/024", False), ("fd00::/64", False), (" 10.0.0.0/24", False)])
def test_a_network_is_written_in_one_way_only(cidr: str, good: bool) -> None:
    assert (faults("network", {"cidr": cidr}) == []) == good


@pytest.mark.parametrize(("cidr", "good"), [
    ("203.0.113.9/32", True), ("203.0.113.8/30", True), ("8.0.0.0/8", True), ("8.0.0.0/7", False), ("203.0.113.9/30", False), ("203.0.113.9", False)])
def test_a_pool_may_be_a_single_address(cidr: str, good: bool) -> None:
    assert (faults("pool", {"cidr": cidr}) == []) == good


@pytest.mark.parametrize(("time", "good"), [
    ("2026-11-22T10:00:00Z", True), ("2026-11-22T10:00:00.123456789Z", True), ("2026-11-22T10:00:00+01:00", False), ("2026-11-22", False),
    ("2026-11-22T10:00:00", False), ("2026-13-22T10:00:00Z", False), ("2026-11-22 10:00:00Z", False), ("2026-11-22T10:00:00Z\n", False),
    ("2026-11-22T25:00:00Z", False), ("٢026-11-22T10:00:00Z", False)])
def test_a_time_is_one_of_rfc_3339(time: str, good: bool) -> None:
    assert (faults("key", {"expires_at": time}) == []) == good


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "http://a/b\nc", "http://", "HTTP://a", "http://a b"])
def test_an_image_comes_from_http(url: str) -> None:
    spec = {"source": {"kind": "url", "url": url}, "sha256": "a" * 64}
    assert faults("image", spec) == [("/spec/source/url", "pattern")]


def test_no_refusal_repeats_what_was_refused() -> None:
    secret = "hunter2-hunter2-hunter2"
    for kind, spec in (("key", {"secret": secret}), ("key", {"secret": [secret]}), ("instance", {**SMALL, "user_data": {secret: secret}}),
                       ("instance", {**SMALL, "ssh_keys": [secret + "\n"]})):
        with pytest.raises(Problem) as refused:
            CATALOGUE.kinds[kind].validate({"spec": spec})
        assert secret not in f"{refused.value} {refused.value.faults}"


def test_defaults_are_filled_in_at_every_depth_and_what_was_written_stays() -> None:
    filled = CATALOGUE.kinds["instance"].filled({**SMALL, "power": "off", "networks": [{"network": "lan"}]})
    assert filled["power"] == "off" and filled["placement"] == {"affinity": [], "anti_affinity": []} and filled["ssh_keys"] == []
    assert filled["disks"] == [{"size_gib": 1, "bus": "virtio"}] and filled["networks"] == [{"network": "lan", "model": "virtio"}]
    assert "user_data" not in filled


def test_filling_does_not_share_a_default_between_two_documents() -> None:
    schema = CATALOGUE.kinds["instance"]
    schema.filled(SMALL)["ssh_keys"].append("x")
    assert schema.filled(SMALL)["ssh_keys"] == []


def test_references_are_found_wherever_they_stand() -> None:
    spec = {**SMALL, "disks": [{"size_gib": 1}, {"size_gib": 1, "image": "web/a"}], "networks": [{"network": "b"}]}
    assert [(each.pointer, each.kind, each.when_gone, each.name) for each in CATALOGUE.kinds["instance"].references(spec)] == [
        ("/spec/disks/1/image", "image", "detach", "web/a"), ("/spec/networks/0/network", "network", "refuse", "b")]


def test_what_can_be_referred_to_can_be_shared() -> None:
    assert CATALOGUE.shareable == {"image", "network"}
    assert CATALOGUE.cluster_kinds == {"namespace", "node", "pool"}


def test_an_immutable_field_that_differs_is_pointed_at_and_one_that_does_not_is_not() -> None:
    schema = CATALOGUE.kinds["instance"]
    old = schema.filled(SMALL)
    assert list(schema.immutable(old, {**old, "cpus": 2, "power": "off"})) == []
    assert [fault.pointer for fault in schema.immutable(old, {**old, "firmware": "uefi", "disks": []})] == ["/spec/disks", "/spec/firmware"]
    assert [fault.pointer for fault in schema.immutable(old, {**old, "user_data": "x"})] == ["/spec/user_data"]


def test_immutable_in_a_lists_elements_compares_elements_of_the_same_place() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"size": {"x-immutable": True}, "label": {}}}}
    def differing(old: Any, new: Any) -> list[str]:
        return [fault.pointer for fault in catalogue._immutable(schema, old, new, "")]
    one, two = {"size": 1, "label": "a"}, {"size": 2, "label": "a"}
    assert differing([one], [{**one, "label": "b"}, two]) == []
    assert differing([one, one], [one, two]) == ["/1/size"]
