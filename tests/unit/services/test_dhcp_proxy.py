"""Beside another DHCP server: what is offered, to whom, and where Pis are met."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.config import Config, parse
from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.nodes.boots import Stage
from kestrelpi.paths import Paths
from kestrelpi.services.dhcp.packet import NOWHERE, Kind
from kestrelpi.services.dhcp.proxy import Proxy
from kestrelpi.services.directory import Directory
from kestrelpi.services.meeting import Meeting
from tests.unit.services.dhcp_bytes import (
    BOOTCODE,
    EEPROM_4,
    GUID_4,
    MAC_3B,
    MAC_4,
    OPTION,
    ROM_3B,
    STRANGER,
    Bench,
    message,
    node,
    options_of,
)

PROXY = "network: {address: 10.77.0.1/24}\nservices: {dhcp: {backend: proxy%s}}\n"
ROUTER = bytes([10, 77, 0, 254])
MENU = bytes.fromhex("060103 0a0400505845 0917000014") + b"Raspberry Pi Boot   \xff"
LINUX: tuple[OPTION, ...] = ((53, b"\x01"), (55, bytes([1, 3, 6])), (60, b"udhcp 1.35"))


class ProxyBench(Bench):
    """A bench with the proxy's rules."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.policy
        self.policy = Proxy(
            self.config,
            known.site,
            self.directory,
            self.book,
            known.event,
            known.sighted,
            self.notices,
            known.note,
        )


def bench(more: str = "") -> ProxyBench:
    return ProxyBench(PROXY % more, nodes=[node()])


def test_the_offer_names_the_boot_server_and_no_address() -> None:
    offer = bench().answer(message(EEPROM_4))
    assert (offer.kind, offer.address, offer.delay) == (Kind.OFFER, NOWHERE, 0)
    assert offer.packet[16:24] == bytes(4) + bytes([10, 77, 0, 1]), "yiaddr, siaddr"
    assert offer.packet[108:236].rstrip(b"\0") == b"bootcode.bin"
    assert options_of(offer.packet) == [
        (53, b"\x02"),
        (54, bytes([10, 77, 0, 1])),
        (60, b"PXEClient"),
        (66, b"10.77.0.1"),
        (97, GUID_4),
        (43, MENU),
    ]
    assert len(offer.packet) >= 300


@pytest.mark.parametrize(("options", "mac"), [(ROM_3B, MAC_3B), (BOOTCODE, MAC_3B), (EEPROM_4, STRANGER)])
def test_every_boot_loader_of_a_pi_is_answered_and_no_lease_is_made(options: tuple[OPTION, ...], mac: str) -> None:
    made = bench()
    assert made.answer(message(options, mac)).delay == (2 if options == ROM_3B else 0)
    assert made.book.all() == []
    assert [stage for _, stage, _ in made.events] == [Stage.DISCOVER, Stage.OFFER]


def test_nobody_else_is_answered() -> None:
    made = bench(", strangers: address")
    pc = tuple(option for option in EEPROM_4 if option[0] != 97)
    assert made.ask(message(pc, STRANGER)) is None
    assert made.ask(message(LINUX)) is None, "a Pi's operating system gets its address from the other server"
    request = ((53, b"\x03"), (50, bytes([10, 77, 0, 130])), (54, ROUTER), (60, b"PXEClient"))
    assert made.ask(message(request)) is None
    release = message(((53, b"\x07"), (54, ROUTER)), ciaddr=bytes([10, 77, 0, 130]))
    assert made.ask(release) is None
    assert made.answer(message(EEPROM_4))


@pytest.mark.parametrize("setting", ["address", "ignore"])
def test_a_pi_that_may_not_boot_is_seen_but_not_answered(setting: str) -> None:
    made = bench(f", unregistered: {setting}")
    assert made.ask(message(ROM_3B, MAC_3B)) is None
    assert [stage for _, stage, _ in made.events] == [Stage.DISCOVER]
    assert made.answer(message(EEPROM_4)), "a registered one is"


def test_a_request_to_the_other_server_is_a_stage_and_no_fault() -> None:
    made = bench()
    made.ask(message(EEPROM_4, xid=7))
    made.ask(message(((53, b"\x03"), (50, bytes([10, 77, 0, 130])), (54, ROUTER)), xid=7))
    assert made.events[-1] == (MAC_4, Stage.REQUEST, "at 10.77.0.254")
    assert made.notes == [] and made.notices.foreign_servers == {}


def test_a_server_of_addresses_is_as_it_should_be_and_a_second_proxy_is_not() -> None:
    made = bench()
    made.ask(message(EEPROM_4))
    offer: tuple[OPTION, ...] = ((53, b"\x02"), (54, ROUTER))
    with_address = bytearray(message(offer, op=2))
    with_address[16:20] = bytes([10, 77, 0, 130])
    made.ask(bytes(with_address))
    assert made.notices.foreign_servers == {}
    made.ask(message(offer, op=2))
    assert list(made.notices.foreign_servers) == [IPv4Address("10.77.0.254")]
    assert made.notes == [(MAC_4, Sign.FOREIGN, "proxy 10.77.0.254")]


class Meetings:
    def __init__(self, folder: Path, config: Config) -> None:
        self.noted: dict[str, IPv4Address] = {}
        self.meeting = Meeting(Directory(Paths(folder), config), self.noted.__setitem__)


def test_who_is_met_is_noted_beside_another_server_only(tmp_path: Path) -> None:
    beside = Meetings(tmp_path, parse(PROXY % ""))
    beside.meeting.met(MAC_4, "10.77.0.130")
    beside.meeting.met(MAC_3B, "192.0.2.1")
    assert beside.noted == {MAC_4: IPv4Address("10.77.0.130")}, "and only on the nodes' network"
    alone = Meetings(tmp_path, Config())
    alone.meeting.met(MAC_4, "10.77.0.130")
    assert alone.noted == {}
