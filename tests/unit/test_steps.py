"""Planning, told as sentences: what a node lacks is built in order, and data goes only when its document is retired."""
from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wisp.host import Disk, Domain, Floating, Gateway, Host, Image, Lease, Nic, Part, Seed, Segment, Station
from wisp.steps import Fate, Step, Todo, plan, reap, take_down

SHA = "a" * 64
LAN = Segment("net-1", 0xA1, frozenset({"10.0.0.2"}), frozenset({Station("02:00:00:00:00:02", "10.1.0.7")}))
GATEWAY = Gateway("net-1", 0xA1, "10.1.0.1/24", "02:00:00:00:00:01", "100.64.0.9")
FLOATING = Floating("ip-1", "net-1", 0xA1, "203.0.113.9", "10.1.0.7")
IMAGE = Image(SHA)
DISK = Disk("vm-1", 0, 8, SHA)
SEED = Seed("vm-1", "d" * 64)
DOMAIN = Domain("vm-1", "web.front", 2, 512, ("virtio",), (Nic("02:00:00:00:00:02", "br-0000a1", uid="net-1"),), "d" * 64)
VM = Host.of([DISK, SEED, DOMAIN])
AROUND = Host.of([LAN, IMAGE])


def sentences(todo: Todo) -> list[str]:
    return [str(step) for step in todo.steps]


def vm(**changes: object) -> Host:
    return Host.of([DISK, SEED, replace(DOMAIN, **changes)])  # type: ignore[arg-type]


def test_a_new_machine_gets_disk_config_drive_and_definition_before_it_starts() -> None:
    assert sentences(plan(VM, Host(), AROUND)) == [
        "create disk 0", "write config drive", "define domain web.front", "start domain web.front"]


def test_what_is_there_needs_nothing() -> None:
    assert plan(VM, VM, AROUND) == Todo()
    assert plan(Host.of([LAN, GATEWAY]), Host.of([LAN, GATEWAY]), Host()).done


def test_a_machine_waits_for_its_image_and_its_segment_and_nothing_is_begun() -> None:
    todo = plan(VM, Host(), Host())
    assert todo.steps == ()
    assert [wait.what for wait in todo.waits] == [f"image {SHA[:12]}", "segment br-0000a1"]


def test_a_machine_whose_disk_exists_does_not_wait_for_the_image_it_came_from() -> None:
    assert sentences(plan(VM, Host.of([DISK]), Host.of([LAN]))) == [
        "write config drive", "define domain web.front", "start domain web.front"]


def test_a_disk_that_was_made_and_is_missing_is_lost_and_nothing_is_made_anew() -> None:
    wish = Host.of([replace(DISK, made=True), SEED, DOMAIN])
    todo = plan(wish, Host.of([SEED, DOMAIN]), AROUND)
    assert todo.steps == () and [disk.index for disk in todo.lost] == [0]


def test_a_machine_somebody_destroyed_is_started_again() -> None:
    assert sentences(plan(VM, vm(power="off", note="destroyed"), AROUND)) == ["start domain web.front"]


def test_a_crashed_machine_is_stopped_before_it_is_started() -> None:
    assert sentences(plan(VM, vm(power="crashed"), AROUND)) == ["stop domain web.front", "start domain web.front"]


def test_power_moves_by_the_shortest_way() -> None:
    ways = {(wish, now): sentences(plan(vm(power=wish), vm(power=now), AROUND))
            for wish in ("on", "off", "paused") for now in ("on", "off", "paused")}
    assert {pair: [text.removesuffix(" domain web.front") for text in way] for pair, way in ways.items()} == {
        ("on", "on"): [], ("on", "off"): ["start"], ("on", "paused"): ["resume"],
        ("off", "on"): ["shut down"], ("off", "off"): [], ("off", "paused"): ["stop"],
        ("paused", "on"): ["suspend"], ("paused", "off"): ["start", "suspend"], ("paused", "paused"): []}


def test_more_memory_means_shut_down_define_start() -> None:
    assert sentences(plan(vm(memory_mib=1024), VM, AROUND)) == [
        "shut down domain web.front", "define domain web.front", "start domain web.front"]


def test_another_config_drive_does_not_restart_the_machine() -> None:
    fresh = Seed("vm-1", "e" * 64)
    wish = Host.of([DISK, fresh, replace(DOMAIN, seed="e" * 64)])
    assert sentences(plan(wish, VM, AROUND)) == ["write config drive", "define domain web.front"]


def test_a_tap_that_hangs_on_no_bridge_is_plugged_without_a_restart() -> None:
    loose = replace(DOMAIN, nics=(replace(DOMAIN.nics[0], plugged=False),))
    assert sentences(plan(VM, Host.of([DISK, SEED, loose]), AROUND)) == ["plug domain web.front"]


def test_a_retired_machine_is_stopped_and_its_data_goes() -> None:
    assert sentences(take_down(VM, Fate.RETIRED)) == [
        "stop domain web.front", "undefine domain web.front", "drop disk 0", "drop config drive"]


def test_a_machine_bound_elsewhere_is_stopped_and_keeps_its_disks() -> None:
    assert sentences(take_down(VM, Fate.ELSEWHERE)) == ["stop domain web.front"]


def test_a_machine_in_no_document_is_left_alone() -> None:
    assert take_down(VM, Fate.UNKNOWN).done
    assert reap(Host.of([*VM, LAN, IMAGE]), {"net-1"}) == ()


def test_a_wish_without_parts_takes_nothing_down() -> None:
    assert plan(Host(), Host(), Host.of([*VM, LAN, GATEWAY, IMAGE])).done


def test_a_network_gets_its_segment_before_its_gateway() -> None:
    assert sentences(plan(Host.of([GATEWAY, LAN]), Host(), Host())) == ["build segment 0000a1", "build gateway 0000a1"]


def test_a_gateway_that_moved_away_is_removed_and_the_segment_stays() -> None:
    assert sentences(plan(Host.of([LAN]), Host.of([LAN, GATEWAY]), Host())) == ["remove gateway 0000a1"]


def test_a_new_lease_rebuilds_the_gateway_alone() -> None:
    wish = replace(GATEWAY, leases=frozenset({Lease("02:00:00:00:00:02", "10.1.0.7", "front")}))
    assert sentences(plan(Host.of([LAN, wish]), Host.of([LAN, GATEWAY]), Host())) == ["build gateway 0000a1"]


def test_a_segment_with_a_machine_on_it_is_not_removed() -> None:
    assert take_down(Host.of([replace(LAN, busy=True)]), Fate.RETIRED).done
    assert [str(step) for step in reap(Host.of([LAN, GATEWAY]), ())] == ["remove gateway 0000a1", "remove segment 0000a1"]


def test_a_cached_image_goes_only_when_nobody_wants_it_and_no_disk_lies_on_it() -> None:
    assert reap(Host.of([IMAGE]), {IMAGE.token}) == ()
    assert reap(Host.of([IMAGE, DISK]), ()) == ()
    assert [str(step) for step in reap(Host.of([IMAGE]), ())] == [f"drop image {SHA[:12]}"]


def test_a_floating_ip_waits_for_the_gateway_that_leads_to_its_guest() -> None:
    for there in (Host(), Host.of([LAN]), Host.of([replace(GATEWAY, nat=False)]), Host.of([replace(GATEWAY, transit="", address="?broken")])):
        todo = plan(Host.of([FLOATING]), Host(), there)
        assert todo.steps == () and [(wait.token, wait.what) for wait in todo.waits] == [("net-1", "gateway 0000a1")]
    assert sentences(plan(Host.of([FLOATING]), Host(), Host.of([GATEWAY]))) == ["build floating IP 203.0.113.9"]


def test_a_floating_ip_for_another_guest_of_the_network_is_led_there_at_once() -> None:
    there = Host.of([GATEWAY])
    assert sentences(plan(Host.of([replace(FLOATING, inside="10.1.0.8")]), Host.of([FLOATING]), there)) == ["build floating IP 203.0.113.9"]
    assert plan(Host.of([FLOATING]), Host.of([FLOATING]), there).done


def test_a_floating_ip_for_another_network_leaves_the_old_one_first_even_if_the_new_one_is_not_there_yet() -> None:
    moved = replace(FLOATING, network="net-2", vni=0xA2)
    other = replace(GATEWAY, uid="net-2", vni=0xA2)
    assert [str(step) for step in plan(Host.of([moved]), Host.of([FLOATING]), Host.of([GATEWAY, other])).steps] == [
        "remove floating IP 203.0.113.9", "build floating IP 203.0.113.9"]
    todo = plan(Host.of([moved]), Host.of([FLOATING, moved]), Host.of([GATEWAY]))
    assert [(step.verb, step.part) for step in todo.steps] == [("remove", FLOATING)] and len(todo.waits) == 1


def test_a_floating_ip_that_nobody_wants_here_goes_whatever_became_of_it() -> None:
    for fate in Fate:
        assert sentences(take_down(Host.of([FLOATING]), fate)) == ["remove floating IP 203.0.113.9"]
    assert [str(step) for step in reap(Host.of([FLOATING, GATEWAY, LAN]), {"net-1"})] == ["remove floating IP 203.0.113.9"]
    assert [str(step) for step in reap(Host.of([FLOATING, GATEWAY]), ())] == ["remove floating IP 203.0.113.9", "remove gateway 0000a1"]


# --- whatever the state, the plan leads to what is wished

PARTS: list[Part] = [LAN, replace(LAN, peers=frozenset()), GATEWAY, FLOATING, IMAGE, DISK, SEED, Seed("vm-1", "e" * 64), DOMAIN,
                     *(replace(DOMAIN, power=power) for power in ("off", "paused", "crashed")),
                     replace(DOMAIN, cpus=1), replace(DOMAIN, memory_mib=64, power="off")]


def after(step: Step, have: Host) -> Host:
    """The effect of a step on a machine that does as it is told."""
    rest = [part for part in have if (type(part), part.token, getattr(part, "index", 0), getattr(part, "digest", "")) !=
            (type(step.part), step.part.token, getattr(step.part, "index", 0), getattr(step.part, "digest", ""))]
    now = next((part for part in have if isinstance(part, Domain)), None)
    if isinstance(step.part, Domain):
        power = {"start": "on", "resume": "on", "suspend": "paused", "stop": "off", "shut down": "off"}.get(step.verb)
        shape = step.part if step.verb == "define" or now is None else now
        return Host.of([*rest, replace(shape, power=power or (now.power if now else "off"))] if step.verb != "undefine" else rest)
    return Host.of(rest if step.verb in ("remove", "drop") else [*rest, step.part])


def one_of_each(parts: list[Part]) -> Host:
    return Host.of({(type(part), part.token, getattr(part, "index", 0), getattr(part, "digest", "")): part for part in parts}.values())


@given(st.lists(st.sampled_from(PARTS)), st.sampled_from(["on", "off", "paused"]), st.integers(0, 9))
def test_following_the_plan_from_anywhere_and_through_a_crash_arrives(parts: list[Part], power: str, crash: int) -> None:
    want, have = vm(power=power), one_of_each(parts).only({"vm-1"})
    for step in plan(want, have, AROUND).steps[:crash]:
        have = after(step, have)
    for step in plan(want, have, AROUND).steps:
        have = after(step, have)
    assert plan(want, have, AROUND).done


@given(st.lists(st.sampled_from(PARTS)))
def test_taking_down_what_is_retired_leaves_nothing(parts: list[Part]) -> None:
    have = Host.of(part for part in one_of_each(parts) if not isinstance(part, Image))
    for step in take_down(have, Fate.RETIRED).steps:
        have = after(step, have)
    assert not have.parts
