"""Registering, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.nodes import leases, sightings
from kestrelpi.nodes.leases import Lease
from kestrelpi.nodes.registering import (
    Clock,
    Event,
    Learned,
    Registered,
    Registrar,
    Seen,
    learn,
    learn_all,
    nothing_found,
    watch,
)
from kestrelpi.nodes.registry import Node, Registry, edit
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.paths import Paths

START = 1_000_000.0
CONFIG = config.parse(
    "groups: {rpi: {}, big: {prefix: fat}}\nimages: {default: {}, other: {}}\n"
    "services: {dhcp: {extra_ouis: ['02:00:00']}}\n"
)


@dataclass
class World:
    """A frontend on which time passes only when somebody sleeps."""

    paths: Paths
    now: float = START
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    held: dict[str, Lease] = field(default_factory=dict)
    seen: dict[str, Sighting] = field(default_factory=dict)

    def registrar(self, group: str = "rpi", image: str = "") -> Registrar:
        clock = Clock(now=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep)
        return Registrar(self.paths, CONFIG, group, image, clock)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.due and self.due[0][0] <= self.now:
            self.due.pop(0)[1]()

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        self.due.append((START + seconds, do))
        self.due.sort(key=lambda one: one[0])

    def lease(self, mac: str, address: str, expires: float = START + 3600) -> None:
        self.held[mac] = Lease(int(expires), mac, IPv4Address(address))
        leases.write(self.paths.leases, self.held)

    def sight(self, mac: str, serial: str = "", model: str = "", first: float = START) -> None:
        self.seen[mac] = Sighting(mac, serial, model, first=first, last=self.now)
        sightings.write(self.paths.sightings, self.seen)

    @property
    def registry(self) -> Registry:
        return Registry.load(self.paths.registry, CONFIG)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Paths(tmp_path))


def nodes(events: list[Event]) -> list[Node]:
    return [event.node for event in events if isinstance(event, Registered)]


def mac(number: int) -> str:
    return f"dc:a6:32:00:00:{number:02x}"


def test_a_pi_that_is_there_already_becomes_a_node(world: World) -> None:
    world.lease(mac(1), "10.77.0.130")
    world.sight(mac(1), "91cdf03d", "4B", first=START - 60)
    events = list(watch(world.registrar(), count=1))
    node = Node("rpi1", mac(1), "rpi", IPv4Address("10.77.0.11"), "91cdf03d", "4B")
    assert events == [Seen(mac(1), IPv4Address("10.77.0.130"), "91cdf03d", "4B"), Registered(node)]
    assert world.registry.nodes == (node,)
    assert world.now == START, "nothing to wait for"


def test_leases_of_dnsmasq_alone_will_do(world: World) -> None:
    world.lease(mac(1), "10.77.0.130")
    events = list(watch(world.registrar(), count=1))
    assert nodes(events) == [Node("rpi1", mac(1), "rpi", IPv4Address("10.77.0.11"))]


def test_who_is_not_registered(world: World) -> None:
    world.lease("00:11:22:33:44:55", "10.77.0.130")
    world.lease(mac(2), "10.77.0.131", expires=START - 1)
    world.lease(mac(3), "10.77.0.132")
    world.lease("02:00:00:00:00:01", "10.77.0.133")
    with edit(world.paths, CONFIG) as change:
        change.registry = Registry.of([Node("old", mac(3), "rpi", IPv4Address("10.77.0.50"))])
    registrar = world.registrar()
    assert [node.mac for node in nodes(list(watch(registrar, timeout=10)))] == ["02:00:00:00:00:01"]
    assert registrar.strangers == {"00:11:22:33:44:55"}


def test_a_sighting_makes_a_pi_of_any_mac(world: World) -> None:
    world.lease("00:11:22:33:44:55", "10.77.0.130")
    world.sight("00:11:22:33:44:55", "91cdf03d", "4B")
    assert len(nodes(list(watch(world.registrar(), count=1)))) == 1


def test_a_fresh_lease_waits_for_its_serial(world: World) -> None:
    world.at(1, lambda: world.lease(mac(1), "10.77.0.130"))
    world.at(2.5, lambda: world.sight(mac(1), "91cdf03d", "4B", first=START + 1))
    events = list(watch(world.registrar(), count=1))
    assert isinstance(events[0], Seen)
    assert [node.serial for node in nodes(events)] == ["91cdf03d"]
    assert world.now == START + 2.5


def test_but_not_for_ever_and_the_serial_is_learned_later(world: World) -> None:
    world.at(1, lambda: world.lease(mac(1), "10.77.0.130"))
    world.at(6, lambda: world.sight(mac(1), "91cdf03d", "4B", first=START + 1))
    events = list(watch(world.registrar(), timeout=10))
    assert [type(event) for event in events] == [Seen, Registered, Learned]
    assert nodes(events)[0].serial == ""
    assert world.registry.by_name["rpi1"].serial == "91cdf03d"
    assert world.registry.by_name["rpi1"].model == "4B"


def test_names_follow_the_order_of_being_seen_first(world: World) -> None:
    for number in (3, 1, 2):
        world.lease(mac(number), f"10.77.0.13{number}", expires=START + 100 - number)
        world.sight(mac(number), f"0000000{number}", "4B", first=START - 10 + number)
    found = nodes(list(watch(world.registrar(), count=3)))
    assert [(node.name, node.mac) for node in found] == [("rpi1", mac(1)), ("rpi2", mac(2)), ("rpi3", mac(3))]


def test_nobody_overtakes_a_pi_that_waits_for_its_serial(world: World) -> None:
    world.at(1, lambda: world.lease(mac(1), "10.77.0.130"))
    world.at(2, lambda: world.lease(mac(2), "10.77.0.131"))
    world.at(2, lambda: world.sight(mac(2), "00000002", "4B", first=START + 2))
    found = nodes(list(watch(world.registrar(), count=2)))
    assert [(node.name, node.mac) for node in found] == [("rpi1", mac(1)), ("rpi2", mac(2))]


def test_count_leaves_the_others_alone(world: World) -> None:
    for number in (1, 2, 3):
        world.lease(mac(number), f"10.77.0.13{number}")
    assert [node.name for node in nodes(list(watch(world.registrar(), count=2)))] == ["rpi1", "rpi2"]
    assert len(world.registry) == 2


def test_gaps_in_names_and_addresses_are_filled(world: World) -> None:
    with edit(world.paths, CONFIG) as change:
        change.registry = Registry.of(
            [
                Node("fat1", mac(11), "big", IPv4Address("10.77.0.11")),
                Node("fat3", mac(13), "big", IPv4Address("10.77.0.13")),
            ]
        )
    world.lease(mac(1), "10.77.0.130")
    world.lease(mac(2), "10.77.0.131")
    world.lease("00:11:22:33:44:55", "10.77.0.12")
    found = nodes(list(watch(world.registrar("big", "other"), count=2)))
    assert [(node.name, str(node.address), node.image) for node in found] == [
        ("fat2", "10.77.0.14", "other"),
        ("fat4", "10.77.0.15", "other"),
    ]


def test_the_groups_own_image_is_not_written_down(world: World) -> None:
    world.lease(mac(1), "10.77.0.130")
    assert nodes(list(watch(world.registrar(image="default"), count=1)))[0].image == ""


def test_two_pis_with_one_serial_are_warned_of(world: World) -> None:
    for number in (1, 2):
        world.lease(mac(number), f"10.77.0.13{number}")
        world.sight(mac(number), "91cdf03d", "4B", first=START - 10 + number)
    events = [event for event in watch(world.registrar(), count=2) if isinstance(event, Registered)]
    assert [event.node.serial for event in events] == ["91cdf03d", ""]
    assert events[0].warning == ""
    assert f"serial is 91cdf03d, which is rpi1's ({mac(1)})" in events[1].warning


def test_learning_never_gives_two_nodes_one_serial() -> None:
    two = Registry.of([Node(f"rpi{n}", mac(n), "rpi", IPv4Address(f"10.77.0.1{n}")) for n in (1, 2)])
    known = {mac(n): Sighting(mac(n), "91cdf03d", "4B") for n in (1, 2)}
    assert [(node.serial, node.model) for node in learn(two, known)] == [("91cdf03d", "4B"), ("", "4B")]
    assert learn(two, {}) is two


def test_the_daemon_learns_without_registering(world: World) -> None:
    assert learn_all(world.paths, CONFIG) == []
    with edit(world.paths, CONFIG) as change:
        change.registry = Registry.of([Node("rpi1", mac(1), "rpi", IPv4Address("10.77.0.11"))])
    world.lease(mac(2), "10.77.0.130")
    world.sight(mac(1), "91cdf03d", "4B")
    assert [node.serial for node in learn_all(world.paths, CONFIG)] == ["91cdf03d"]
    assert learn_all(world.paths, CONFIG) == []
    assert [(node.name, node.model) for node in world.registry] == [("rpi1", "4B")]


def test_no_free_address(tmp_path: Path) -> None:
    world = World(Paths(tmp_path))
    small = config.parse("network: {nodes: 10.77.0.11-10.77.0.11}\n")
    registrar = Registrar(world.paths, small, "rpi", clock=Clock(now=lambda: START))
    for number in (1, 2):
        world.lease(mac(number), f"10.77.0.13{number}")
    with pytest.raises(UserError, match="no address is free") as caught:
        registrar.poll()
    assert "10.77.0.11-10.77.0.11" in caught.value.what
    assert len(Registry.load(world.paths.registry)) == 0, "none of the batch is written"


def test_unknown_group_and_image(world: World) -> None:
    with pytest.raises(UserError, match="there is no group 'rpo'"):
        world.registrar("rpo")
    with pytest.raises(UserError, match="there is no image 'gone'"):
        world.registrar("rpi", "gone")


def test_what_to_check_when_nothing_came(world: World) -> None:
    registrar = world.registrar()
    assert "is kestrelpi serve running?" in str(nothing_found(registrar, 0, 0))
    world.lease("00:11:22:33:44:55", "10.77.0.130")
    world.lease(mac(1), "10.77.0.131")
    list(watch(registrar, timeout=1))
    text = str(nothing_found(registrar, 1, 4))
    assert text.startswith("1 of 4 new Pis appeared")
    assert "1 Pis with a lease are registered already" in text
    assert "(00:11:22:33:44:55): if they are Pis, add to services.dhcp.extra_ouis" in text
    assert "spanning tree" in text


def test_dnsmasqs_own_leases_are_read_where_it_gives_the_addresses(world: World, tmp_path: Path) -> None:
    theirs = tmp_path / "dnsmasq.leases"
    theirs.write_text(f"{int(START) + 3600} dc:a6:32:00:00:01 10.77.0.140 * 01:dc:a6:32:00:00:01\n")
    world.lease("dc:a6:32:00:00:02", "10.77.0.141")
    world.sight("dc:a6:32:00:00:01", "0000abcd", "4B")
    beside = config.parse(f"services: {{dhcp: {{backend: dnsmasq, dnsmasq_leases: {theirs}}}}}\n")
    clock = Clock(now=lambda: world.now, monotonic=lambda: world.now, sleep=world.sleep)
    registrar = Registrar(world.paths, beside, "rpi", clock=clock)
    events = registrar.poll()
    assert [(event.node.mac, str(event.node.address)) for event in events if isinstance(event, Registered)] == [
        ("dc:a6:32:00:00:01", "10.77.0.11")
    ]
    theirs.unlink()
    assert f"nobody has a lease in {theirs}: is dnsmasq running?" in nothing_found(registrar, 0, 1).detail
