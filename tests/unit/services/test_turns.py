"""Turns as DHCP, HTTP and the findings see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kestrelpi.config import parse
from kestrelpi.nodes.boots import FOR_OFFER, Stage
from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.services.admission import EEPROM, FILES_SHARE
from kestrelpi.services.dhcp.packet import Kind
from kestrelpi.services.dhcp.proxy import Proxy
from kestrelpi.services.turns import CARRIED, Turns, link_speed, turns_of
from tests.unit.services.dhcp_bytes import BOOTCODE, EEPROM_4, MAC_3B, MAC_4, ROM_3B, Bench, message, node

CONFIG = "network: {address: 10.77.0.1/24, interface: eth1}\n"


@dataclass
class Crowd:
    """A link whose every place is taken, in front of a DHCP server."""

    now: float = 1000.0
    called: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = Turns(lambda: 1000 * CARRIED, lambda: self.now)
        self.turns.called = self.called.extend
        self.turns.gone = self.gone.extend
        self.now += 100
        self.others = [f"dc:a6:33:00:00:{number:02x}" for number in range(int(1000 * CARRIED / FILES_SHARE))]
        for mac in self.others:
            assert self.turns.ask(mac, EEPROM, 1)
        self.load()

    def load(self) -> None:
        for mac in self.others:
            self.turns.reached(mac, Stage.FIRMWARE)

    def through(self) -> None:
        """One of them has all its files."""
        self.turns.reached(self.others.pop(), Stage.KERNEL)


def test_a_boot_loader_waits_for_its_offer_and_gets_it_in_its_turn() -> None:
    crowd, bench = Crowd(), Bench(nodes=[node()])
    bench.policy.turns = crowd.turns
    assert bench.ask(message(EEPROM_4)) is None
    assert crowd.turns.waits(MAC_4) and bench.notes == [(MAC_4, Sign.HELD, FOR_OFFER)]
    assert [stage for _, stage, _ in bench.events] == [Stage.DISCOVER], "it is seen"
    assert bench.policy.counters["held"] == 1
    crowd.turns.look()
    assert crowd.called == []
    crowd.through()
    crowd.turns.look()
    assert crowd.called == [MAC_4]
    offer = bench.policy.called(bench.parsed(message(EEPROM_4)), bench.now)
    assert offer is not None and (offer.kind, str(offer.address)) == (Kind.OFFER, "10.77.0.11")
    assert bench.ask(message(EEPROM_4)) is not None, "and so does its next DISCOVER"


def test_only_boot_loaders_wait() -> None:
    crowd = Crowd()
    bench = Bench("network: {address: 10.77.0.1/24}\nservices: {dhcp: {strangers: address}}\n", nodes=[node()])
    bench.policy.turns = crowd.turns
    linux = ((53, b"\x01"), (55, bytes([1, 3, 6])))
    assert bench.ask(message(linux)) is not None, "the initramfs and the running system"
    assert bench.ask(message(EEPROM_4[:4] + EEPROM_4[5:], "00:16:3e:00:00:01")) is not None, "a PC, which loads nothing"
    assert crowd.turns.standing.waiting_files == 0


def test_a_pi_3_is_let_in_before_it_is_dead() -> None:
    crowd, bench = Crowd(), Bench("network: {address: 10.77.0.1/24}\nservices: {dhcp: {rom_delay: 3s}}\n")
    bench.policy.turns = crowd.turns
    assert bench.ask(message(ROM_3B, MAC_3B)) is None
    assert bench.ask(message(BOOTCODE, "b8:27:eb:00:00:02")) is None
    waited: dict[str, float] = {}
    begun = crowd.now
    while len(waited) < 2:
        crowd.now += 0.25
        crowd.load()
        crowd.turns.look()
        waited |= {mac: crowd.now - begun for mac in crowd.called if mac not in waited}
    assert waited == {MAC_3B: 12.0, "b8:27:eb:00:00:02": 15.0}, "five tries in 25 s; two are left, and the delay"


def test_a_proxys_offer_waits_too() -> None:
    crowd = Crowd()
    bench = Bench(nodes=[node()])
    policy = bench.policy
    proxy = Proxy(
        policy.config, policy.site, policy.directory, policy.book, policy.event, policy.sighted, policy.notices,
        turns=crowd.turns,
    )  # fmt: skip
    asked = bench.parsed(message(EEPROM_4))
    assert proxy.answer(asked, bench.now) is None and crowd.turns.waits(MAC_4)
    offer = proxy.called(asked, bench.now)
    assert offer is not None and offer.packet[16:20] == bytes(4)


def test_who_gave_up_is_named(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd()
    assert not crowd.turns.ask(MAC_4, EEPROM, 5)
    crowd.now += 61
    crowd.load()
    crowd.turns.look()
    assert crowd.gone == [MAC_4] and MAC_4 in caplog.text


@pytest.mark.parametrize(
    ("said", "configured", "mbit"),
    [
        ("1000\n", 0, 1000),
        ("100\n", 0, 100),
        ("100\n", 2500, 2500),
        ("-1\n", 0, 1000),
        ("10\n", 0, 1000),
        ("", 0, 1000),
        (None, 0, 1000),
    ],
)
def test_how_fast_the_link_is(tmp_path: Path, said: str | None, configured: int, mbit: int) -> None:
    if said is not None:
        (tmp_path / "eth1").mkdir()
        (tmp_path / "eth1/speed").write_text(said)
    config = parse(CONFIG.replace("eth1}", f"eth1, speed: {configured}}}"))
    assert link_speed(config, "eth1", tmp_path) == pytest.approx(mbit * CARRIED)


def test_a_cable_that_is_plugged_in_later_counts() -> None:
    now, mbit = 0.0, 100
    turns = Turns(lambda: mbit * CARRIED, lambda: now)
    assert turns.standing.link == pytest.approx(100 * CARRIED)
    now, mbit = 6.0, 10_000
    turns.look()
    assert turns.standing.link == pytest.approx(10_000 * CARRIED)


@pytest.mark.parametrize("text", ["{admission: false}", "{listen: 127.0.0.1}"])
def test_nobody_waits_where_there_is_no_link_or_nobody_wants_it(text: str) -> None:
    assert turns_of(parse(f"{CONFIG}services: {text}\n")) is None
    assert turns_of(parse(CONFIG)) is not None
