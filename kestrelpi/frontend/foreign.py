"""Who else gives addresses on the nodes' network: ask, and see who answers.

Listening is not enough: a switch sends an offer only to the port of the Pi that it is for. A DISCOVER with the
broadcast flag (RFC 2131 section 4.1) makes every server answer to all.
"""

from __future__ import annotations

import os
import select
import struct
import time
from contextlib import closing
from ipaddress import IPv4Address

from kestrelpi.services.dhcp import wire
from kestrelpi.services.dhcp.packet import COOKIE, FIXED, NOWHERE, Kind, Malformed, Message, parse

WAIT = 4.0
"""Seconds for answers: dnsmasq first looks for 3 s whether anybody has the address."""
BROADCAST = 0x8000
OPTIONS = (
    b"\x35\x01\x01"  # DISCOVER
    b"\x37\x04\x01\x03\x2b\x42"  # wants mask, router and what a boot loader wants
    b"\x5d\x02\x00\x00\x5e\x03\x01\x02\x01"
    b"\x3c\x20PXEClient:Arch:00000:UNDI:002001\xff"
)
"""What a Pi's boot loader says, so that servers which only boot machines answer too."""


def discover(mac: bytes, xid: int) -> bytes:
    """The frame of a DISCOVER to everybody, from a client without an address."""
    fixed = FIXED.pack(1, 1, 6, 0, xid, 0, BROADCAST, b"", b"", b"", b"", mac, b"", b"", COOKIE)
    payload = (fixed + OPTIONS).ljust(300, b"\0")
    udp = struct.pack("!4H", wire.CLIENT_PORT, wire.SERVER_PORT, 8 + len(payload), 0)
    ip = struct.pack("!2B3H2BH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, b"", b"\xff" * 4)
    ip = ip[:10] + struct.pack("!H", wire.checksum(ip)) + ip[12:]
    return b"\xff" * 6 + mac + struct.pack("!H", wire.ETHERNET_IP) + ip + udp + payload


def answer(raw: bytes, xid: int, ours: IPv4Address) -> tuple[str, str] | None:
    """Address and kind (`dhcp`, `proxy`) of the server in a frame, if it is an answer of another one to us."""
    try:
        said: Message = parse(wire.udp_payload(raw))
    except (Malformed, IndexError):
        return None
    if said.xid != xid or said.kind is not Kind.OFFER or said.server in (None, ours):
        return None
    return str(said.server), "proxy" if said.yiaddr == NOWHERE else "dhcp"


def ask(interface: str, ours: IPv4Address, wait: float = WAIT) -> dict[str, str]:
    """Other servers on `interface`: address to kind. None without the right to send frames."""
    link = wire.open_link(interface)
    if link is None:
        return {}
    found: dict[str, str] = {}
    xid = int.from_bytes(os.urandom(4), "big")
    with closing(link):
        link.send(discover(wire.hardware_address(link), xid))
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0 and select.select([link], [], [], left)[0]:
            heard = answer(link.recv(2048), xid, ours)
            if heard:
                found.setdefault(*heard)
    return found
