"""DHCP messages as the published captures of Pis have them, byte by byte, and the server's parts with fakes around."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from kestrelpi.config import Config, parse
from kestrelpi.nodes.boots import Kind, Stage
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.node import Node
from kestrelpi.services.dhcp import packet
from kestrelpi.services.dhcp.answer import Answer
from kestrelpi.services.dhcp.book import LeaseBook
from kestrelpi.services.dhcp.notices import Notices
from kestrelpi.services.dhcp.offer import site
from kestrelpi.services.dhcp.packet import Message
from kestrelpi.services.dhcp.policy import Policy

VENDOR_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
MAC_3B = "b8:27:eb:01:02:03"
MAC_4 = "e4:5f:01:09:02:f7"
STRANGER = "00:16:3e:00:00:01"
NOBODY = bytes(4)

OPTION = tuple[int, bytes]
ROM_3B: tuple[OPTION, ...] = (
    (53, b"\x01"),
    (55, bytes([43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66])),
    (93, b"\0\0"),
    (94, b"\1\2\1"),
    (97, b"\0" + b"\x44" * 16),
    (60, VENDOR_CLASS),
)
BOOTCODE: tuple[OPTION, ...] = (
    (53, b"\x01"),
    (55, bytes([43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66, 1, 3])),
    (93, b"\0\0"),
    (94, b"\1\2\1"),
    (97, b"\0" + b"\xf5\x96\x86\x8d" * 4),
    (60, VENDOR_CLASS),
)
GUID_4 = bytes.fromhex("00 34695052 1431d000 010902f7 3df0cd91")
"""A Pi 4's option 97: revision d03114, the end of its MAC, serial 91cdf03d."""
EEPROM_4: tuple[OPTION, ...] = (
    (53, b"\x01"),
    (55, bytes([1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135])),
    (93, b"\0\0"),
    (94, b"\1\2\1"),
    (97, GUID_4),
    (60, VENDOR_CLASS),
)


def message(
    options: Iterable[OPTION],
    mac: str = MAC_4,
    xid: int = 0x26F30339,
    flags: int = 0,
    ciaddr: bytes = NOBODY,
    giaddr: bytes = NOBODY,
    op: int = 1,
) -> bytes:
    """A client's message: nothing padded, `secs` and `hops` 0."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    fixed = struct.pack("!4BI2H", op, 1, 6, 0, xid, 0, flags) + ciaddr + NOBODY + NOBODY + giaddr
    fixed += hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
    return fixed + b"".join(bytes([code, len(value)]) + value for code, value in options) + b"\xff"


def options_of(raw: bytes) -> list[OPTION]:
    """The options of a reply in their order, read without the code under test."""
    found = []
    at = 240
    while raw[at] != 255:
        found.append((raw[at], raw[at + 2 : at + 2 + raw[at + 1]]))
        at += 2 + raw[at + 1]
    assert not any(raw[at + 1 :]), "only padding behind the end"
    return found


@dataclass
class FakeDirectory:
    nodes: list[Node] = field(default_factory=list)

    def node_by_mac(self, mac: str) -> Node | None:
        return next((node for node in self.nodes if node.mac == mac), None)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return next((node for node in self.nodes if node.address == address), None)


@dataclass
class Bench:
    """A policy with everything around it faked."""

    text: str = ""
    nodes: list[Node] = field(default_factory=list)
    now: float = 1_800_000_000.0
    events: list[tuple[str, Stage, str]] = field(default_factory=list)
    sightings: list[tuple[str, Identity]] = field(default_factory=list)
    notes: list[tuple[str, Kind, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config: Config = parse(self.text or "network: {address: 10.77.0.1/24}\n")
        self.directory = FakeDirectory(self.nodes)
        own = self.config.listen
        self.book = LeaseBook(
            self.config.pool, lambda address: address == own or self.directory.node_by_address(address) is not None
        )
        self.notices = Notices(lambda: self.now)
        self.policy = Policy(
            self.config,
            site(self.config),
            self.directory,
            self.book,
            lambda mac, stage, detail: self.events.append((mac, stage, detail)),
            lambda mac, said: self.sightings.append((mac, said)),
            self.notices,
            lambda mac, kind, detail: self.notes.append((mac, kind, detail)),
        )

    def parsed(self, raw: bytes) -> Message:
        return packet.parse(raw)

    def ask(self, raw: bytes) -> Answer | None:
        return self.policy.answer(packet.parse(raw), self.now)

    def answer(self, raw: bytes) -> Answer:
        answer = self.ask(raw)
        assert answer is not None
        return answer


def node(mac: str = MAC_4, address: str = "10.77.0.11", name: str = "rpi1") -> Node:
    return Node(name, mac, "rpi", IPv4Address(address))
