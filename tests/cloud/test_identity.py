"""Who may see and do what, at every door."""
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from simulated import IMAGE, LAN, SMALL, Cloud

from wisp.admission import Caller
from wisp.errors import Problem
from wisp.store import under


@pytest.fixture
def stranger(cloud: Cloud) -> Caller:
    """An admin of another namespace."""
    cloud.put("namespace", "shop", {})
    return cloud.key("boss", "admin", namespace="shop")


def code(cloud: Cloud, call: str, kind: str, name: str, caller: Caller, *spec: object) -> str:
    """What a call is refused with, "" when it is not."""
    try:
        getattr(cloud, call)(kind, name, *spec, caller)
    except Problem as problem:
        return problem.code
    return ""


def refused(cloud: Cloud, token: str) -> bool:
    try:
        cloud.bearer(token)
    except Problem as problem:
        return problem.code == "unauthenticated"
    return False


def test_what_is_anothers_is_not_even_known(cloud: Cloud, stranger: Caller) -> None:
    cloud.put("network", "lan", LAN)
    for name in ("lan", "nothing"):
        assert code(cloud, "get", "network", name, stranger) == "not_found"
        assert code(cloud, "put", "network", name, stranger, LAN) == "not_found"
        assert code(cloud, "delete", "network", name, stranger) == "not_found"
    assert code(cloud, "get", "namespace", "web", stranger) == "not_found"
    assert code(cloud, "get", "node", "n1", stranger) == "not_found"
    assert cloud.get("namespace", "shop", stranger)["name"] == "shop"


def test_a_viewer_sees_and_changes_nothing(cloud: Cloud) -> None:
    cloud.put("network", "lan", LAN)
    viewer = cloud.key("looker", "viewer")
    assert cloud.get("network", "lan", viewer)["name"] == "lan"
    assert code(cloud, "put", "network", "more", viewer, LAN) == "forbidden"
    assert code(cloud, "delete", "network", "lan", viewer) == "forbidden"


def test_an_editor_makes_networks_and_no_keys(cloud: Cloud) -> None:
    editor = cloud.key("maker", "editor")
    assert cloud.put("network", "lan", LAN, editor).created
    assert code(cloud, "put", "key", "mine", editor, {"role": "admin"}) == "forbidden"
    assert code(cloud, "delete", "key", "maker", editor) == "forbidden"
    assert code(cloud, "put", "namespace", "web", editor, {}) == "forbidden"


def test_an_admin_of_a_tenant_makes_keys_of_it_and_not_of_the_cluster(cloud: Cloud) -> None:
    admin = cloud.key("boss", "admin")
    assert cloud.put("key", "more", {"role": "viewer"}, admin).created
    assert code(cloud, "put", "namespace", "web", admin, {"quotas": {}}) == "forbidden"
    assert code(cloud, "put", "node", "n1", admin, {"cordoned": True}) == "not_found"
    assert cloud.refusal("key", "mine", {"role": "admin"}, admin, namespace="system").code == "not_found"


def test_an_expired_key_is_refused(cloud: Cloud) -> None:
    def key(name: str, at: datetime) -> str:
        spec = {"role": "viewer", "expires_at": at.isoformat().replace("+00:00", "Z")}
        return str(cloud.put("key", name, spec).document["token"])
    now = datetime.now(UTC)
    assert refused(cloud, key("old", now - timedelta(seconds=1)))
    assert not refused(cloud, key("new", now + timedelta(hours=1)))


@pytest.mark.parametrize("held", ["changes", "wait"])
def test_a_key_that_expires_while_its_request_is_held_is_refused(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    caller = cloud.key("k", "viewer", expires_at="2100-01-01T00:00:00Z")
    cloud.settle()
    resources, ref = cloud.service.resources, cloud.ref("key", "k")
    since = cloud.store.revision()
    looks = iter([False])
    monkeypatch.setattr("wisp.resources._expired", lambda at: bool(at) and next(looks, True))
    with pytest.raises(Problem) as refusal:
        resources.changes(caller, since, 20) if held == "changes" else resources.wait(caller, ref, "absent", 20)
    assert refusal.value.code == "unauthenticated" and next(looks, None) is None


def test_a_wrong_key_costs_one_look_at_the_store(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = cloud.service.resources._store, list[int]()
    revision = store.revision

    def counted() -> int:
        asked.append(1)
        return revision()
    monkeypatch.setattr(store, "revision", counted)
    assert refused(cloud, "wisp_0123456789abcdef_" + "f" * 64)
    assert len(asked) == 1


def test_a_list_of_anothers_is_refused_by_the_name_of_the_namespace(cloud: Cloud, stranger: Caller) -> None:
    with pytest.raises(Problem) as refusal:
        cloud.service.resources.list(stranger, "instance", "web")
    assert (refusal.value.code, str(refusal.value)) == ("not_found", "There is no namespace web.")


def test_a_rotated_key_has_a_new_token_and_the_old_one_is_refused_at_once(cloud: Cloud) -> None:
    old = cloud.put("key", "k", {"role": "viewer", "rotation": "1"}).document["token"]
    new = cloud.put("key", "k", {"role": "viewer", "rotation": "2"}).document["token"]
    assert old != new and refused(cloud, old) and not refused(cloud, new)
    assert "token" not in cloud.put("key", "k", {"role": "viewer", "rotation": "2"}).document


def test_another_role_is_no_rotation(cloud: Cloud) -> None:
    token = cloud.put("key", "k", {"role": "viewer"}).document["token"]
    assert "token" not in cloud.put("key", "k", {"role": "editor"}).document
    assert cloud.bearer(token).role == "editor"


def test_a_secret_of_ones_own_is_the_key_and_a_new_one_revokes_it(cloud: Cloud) -> None:
    mine, other = "s" * 43, "t" * 43
    first = cloud.put("key", "k", {"role": "viewer", "secret": mine}).document["token"]
    assert first.endswith(f"_{mine}") and not refused(cloud, first)
    assert "token" not in cloud.put("key", "k", {"role": "viewer", "secret": mine}).document
    second = cloud.put("key", "k", {"role": "viewer", "secret": other}).document["token"]
    assert refused(cloud, first) and not refused(cloud, second)


def test_a_secret_stands_in_no_document(cloud: Cloud) -> None:
    mine = "s" * 43
    token = cloud.put("key", "k", {"role": "viewer", "secret": mine}).document["token"]
    made = cloud.put("key", "other", {"role": "viewer"}).document["token"].rsplit("_", 1)[1]
    stored = b"".join(entry.value for entry in cloud.store.read(under("")).spans[0]).decode()
    assert mine not in stored and made not in stored and token not in str(cloud.get("key", "k"))


def test_a_deleted_key_is_refused_at_once(cloud: Cloud) -> None:
    token = cloud.put("key", "k", {"role": "admin"}).document["token"]
    assert not refused(cloud, token)
    cloud.delete("key", "k")
    assert refused(cloud, token)


def test_a_key_revoked_while_its_request_is_under_way_is_refused_and_writes_nothing(cloud: Cloud) -> None:
    caller = cloud.key("k", "admin", rotation="1")
    cloud.put("key", "k", {"role": "admin", "rotation": "2"})
    assert cloud.refusal("network", "lan", LAN, caller).code == "unauthenticated"
    assert code(cloud, "get", "network", "lan", cloud.key("other", "viewer")) == "not_found"


@pytest.mark.parametrize("token", ["", "x", "wisp_", "wisp__", "wisp_0123456789abcdef_" + "f" * 64, "wisp_../system_x"])
def test_what_is_no_key_is_refused(cloud: Cloud, token: str) -> None:
    assert refused(cloud, token)


def test_a_key_with_a_wrong_secret_or_without_one_is_refused(cloud: Cloud) -> None:
    token = cloud.put("key", "k", {"role": "admin"}).document["token"]
    assert refused(cloud, token[:-1]) and refused(cloud, token + "0") and refused(cloud, token.rsplit("_", 1)[0] + "_")


def test_who_knows_a_networks_name_cannot_attach_to_it_without_trust(cloud: Cloud, stranger: Caller) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("image", "guest", IMAGE)
    foreign = {**SMALL, "networks": [{"network": "web/lan"}]}
    problem = cloud.refusal("instance", "vm", foreign, stranger, namespace="shop")
    assert (problem.code, problem.faults[0].pointer) == ("reference", "/spec/networks/0/network")
    booted = {**SMALL, "disks": [{"image": "web/guest", "size_gib": 1}]}
    problem = cloud.refusal("instance", "vm", booted, stranger, namespace="shop")
    assert (problem.code, problem.faults[0].pointer) == ("reference", "/spec/disks/0/image")
    cloud.put("namespace", "web", {"trusts": ["shop"]})
    assert cloud.put("instance", "vm", {**foreign, **booted, "networks": foreign["networks"]}, stranger, namespace="shop").created
    cloud.ready("instance", "vm", namespace="shop")
    assert code(cloud, "delete", "network", "lan", stranger) == "forbidden", "trusted to use, not to change"
    assert cloud.refused_delete("network", "lan").code == "in_use"


def test_trust_withdrawn_keeps_what_is_attached_and_refuses_the_next(cloud: Cloud, stranger: Caller) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("namespace", "web", {"trusts": ["shop"]})
    spec = {**SMALL, "networks": [{"network": "web/lan"}]}
    cloud.put("instance", "vm", spec, namespace="shop")
    cloud.put("namespace", "web", {"trusts": []})
    assert cloud.put("instance", "vm", {**spec, "power": "off"}, namespace="shop").document["generation"] == 2
    assert cloud.refusal("instance", "next", spec, namespace="shop").code == "reference"
    assert code(cloud, "get", "network", "lan", stranger) == "not_found"


def test_a_tenant_does_not_trust_itself_into_anothers_namespace(cloud: Cloud, stranger: Caller) -> None:
    cloud.put("network", "lan", LAN)
    cloud.put("namespace", "shop", {"trusts": ["web"]})
    problem = cloud.refusal("instance", "vm", {**SMALL, "networks": [{"network": "web/lan"}]}, stranger, namespace="shop")
    assert problem.code == "reference"


def test_tags_on_a_key_do_not_disturb_who_uses_it(cloud: Cloud) -> None:
    caller = cloud.key("k", "admin")
    cloud.put("key", "k", {"role": "admin"}, metadata={"owner": "ops"})
    assert cloud.put("network", "lan", LAN, caller).created
