"""A thousand Pi 4 that ask for addresses: their messages, and how long the answers took."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from kestrelpi.nodes.node import Node

PIS = 1000
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
PATIENCE = 4.0
"""Seconds after which a Pi 4 repeats a message (DHCP_REQ_TIMEOUT)."""
LONGEST = 30.0
"""Seconds after which those without an address have none."""


def mac(kind: int, number: int) -> str:
    """Rooms of Pis differ in `kind`; 1 are the registered ones."""
    return f"dc:a6:32:{kind:02x}:{number >> 8:02x}:{number & 255:02x}"


def node(number: int) -> Node:
    """A registered one, from 0."""
    return Node(f"rpi{number + 1}", mac(1, number), "rpi", IPv4Address("10.77.0.11") + number)


def message(kind: int, address: str, more: bytes = b"") -> bytes:
    """A Pi 4's DISCOVER or REQUEST."""
    hardware = bytes.fromhex(address.replace(":", ""))
    options = bytes([53, 1, kind, 55, 6, 1, 3, 43, 60, 66, 67]) + b"\x5d\2\0\0\x5e\3\1\2\1"
    options += b"\x61\x11\0" + b"4iPR\x14\x31\xd0\0" + hardware[2:] + hardware[2:]
    options += b"\x3c\x20PXEClient:Arch:00000:UNDI:002001" + more + b"\xff"
    return b"\1\1\6\0" + bytes(24) + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + options


@dataclass(frozen=True)
class Burst:
    """What a room saw."""

    pis: int
    addresses: int
    """Pis that have one."""
    p50: float
    p99: float
    """Milliseconds from a message, the first of its kind, to its answer."""
    last: float
    """Seconds until the last Pi had its address."""
    repeated: int
    """Messages that had to be sent again: no answer within PATIENCE, or a refusal."""


@dataclass
class Room:
    """Pis of one kind behind the relay `relay`, and what they wait for."""

    sock: socket.socket
    relay: str
    server: str
    kind: int
    waiting: dict[tuple[int, int], tuple[float, float, bytes]] = field(default_factory=dict)
    """By what is awaited and the Pi's number: when it asked first and last, and what it sent."""
    took: list[float] = field(default_factory=list)
    given: dict[int, bytes] = field(default_factory=dict)
    repeated: int = 0

    def ask(self, number: int, what: int, awaited: int, more: bytes = b"") -> None:
        """One Pi sends a message."""
        packet = message(what, mac(self.kind, number), more)
        packet = packet[:24] + socket.inet_aton(self.relay) + packet[28:]
        now = time.monotonic()
        self.waiting[awaited, number] = now, now, packet
        self.sock.sendto(packet, (self.server, 67))

    def hear(self, reply: bytes) -> None:
        """An answer came."""
        number, what = reply[32] << 8 | reply[33], reply[242]
        asked = self.waiting.pop((ACK if what == NAK else what, number), None)
        if asked is None:
            return
        if what == NAK:
            self.repeated += 1
            self.ask(number, DISCOVER, OFFER)
            return
        self.took.append(time.monotonic() - asked[0])
        if what == OFFER:
            identity = b"\x36\4" + socket.inet_aton(self.server)
            self.ask(number, REQUEST, ACK, b"\x32\4" + reply[16:20] + identity)
        else:
            self.given[number] = reply[16:20]

    def again(self) -> None:
        """Repeat what wasn't answered, as a Pi does."""
        now = time.monotonic()
        for what, (first, last, packet) in self.waiting.items():
            if now - last > PATIENCE:
                self.waiting[what] = first, now, packet
                self.repeated += 1
                self.sock.sendto(packet, (self.server, 67))


def burst(relay: str, server: str, kind: int, spread: float, pis: int = PIS) -> Burst:
    """`pis` Pis behind the relay `relay` DISCOVER within `spread` seconds, and REQUEST what they are offered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.bind((relay, 67))
        room = Room(sock, relay, server, kind)
        begun, begins = time.monotonic(), 0
        while len(room.given) < pis and time.monotonic() - begun < LONGEST:
            while begins < pis and time.monotonic() - begun >= spread * begins / pis:
                room.ask(begins, DISCOVER, OFFER)
                begins += 1
            select.select([sock], [], [], 0.001)
            with suppress(BlockingIOError):
                while True:
                    room.hear(sock.recv(2048))
            room.again()
    took = sorted(room.took)
    p50, p99 = (took[int(len(took) * share)] * 1000 if took else 0.0 for share in (0.5, 0.99))
    return Burst(pis, len(set(room.given.values())), p50, p99, time.monotonic() - begun, room.repeated)
