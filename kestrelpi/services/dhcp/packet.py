"""DHCP messages to and from bytes (RFC 2131, RFC 2132).

The options, which are the intricate part, go through scapy's DHCP layer (its DHCPOptionsField), each value that we send
once. The 236 fixed bytes before them are packed by struct: measured on one core of a small machine, scapy's
BOOTP()/DHCP() takes 94 µs to parse and 260 µs to build a message, this way it is 20 and 12 µs, and a burst of a
thousand Pis is answered in time. The unit tests hold both against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any

from scapy.layers.dhcp import DHCPOptionsField

FIXED = struct.Struct("!4BI2H4s4s4s4s16s64s128s4s")
COOKIE = b"\x63\x82\x53\x63"
SHORTEST = 300
"""Bytes: BOOTP's minimum (RFC 1542 section 2.1); some loaders drop less."""
LONGEST = 1500
BROADCAST_FLAG = 0x8000
NOWHERE = IPv4Address(0)
FIELD = DHCPOptionsField("options", b"")

END = b"\xff"
ENCODED = 4096
"""Options that are kept encoded: most are the same in every reply."""

Option = tuple[str | int, Any]


class Kind(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


REPLIES = (Kind.OFFER, Kind.ACK, Kind.NAK)


class Malformed(Exception):
    """These bytes are no DHCP message of an Ethernet client."""


@dataclass(frozen=True)
class Message:
    """A message that was received."""

    op: int
    kind: Kind
    xid: int
    flags: int
    mac: str
    ciaddr: IPv4Address = NOWHERE
    yiaddr: IPv4Address = NOWHERE
    giaddr: IPv4Address = NOWHERE
    options: Mapping[str | int, Any] = field(default_factory=dict)
    """By scapy's names; those that it has no name for by number."""

    @property
    def broadcast(self) -> bool:
        return bool(self.flags & BROADCAST_FLAG)

    @property
    def server(self) -> IPv4Address | None:
        """Option 54."""
        return self._address("server_id")

    @property
    def requested(self) -> IPv4Address | None:
        """Option 50."""
        return self._address("requested_addr")

    @property
    def guid(self) -> bytes:
        """Option 97."""
        return self.text("pxe_client_machine_identifier")

    @property
    def pxe(self) -> bool:
        """Whether a boot loader asks, by option 60; the string is the same for a Pi and a PC."""
        return self.text("vendor_class_id").startswith(b"PXEClient")

    @property
    def wanted(self) -> Sequence[int]:
        """Option 55."""
        found = self.options.get("param_req_list")
        return found if isinstance(found, list) else ()

    def text(self, name: str | int) -> bytes:
        """The bytes of an option; empty when it isn't there."""
        value = self.options.get(name, b"")
        return value if isinstance(value, bytes) else b""

    def _address(self, name: str) -> IPv4Address | None:
        value = self.options.get(name)
        return _ip(value) if isinstance(value, str) else None


def parse(packet: bytes) -> Message:
    """The message in a UDP payload; raises Malformed. Any bytes will do."""
    if not FIXED.size < len(packet) <= LONGEST:
        raise Malformed(f"{len(packet)} bytes")
    op, htype, hlen, _, xid, _, flags, ciaddr, yiaddr, _, giaddr, chaddr, _, _, cookie = FIXED.unpack_from(packet)
    if op not in (1, 2) or htype != 1 or hlen != 6 or cookie != COOKIE:
        raise Malformed("no DHCP message of an Ethernet client")
    if chaddr[0] & 1 or not any(chaddr[:6]):
        raise Malformed("the client's MAC is a group's or zero")
    options = _options(FIELD.m2i(None, packet[FIXED.size :]))
    try:
        kind = Kind(options.get("message-type", 0))
    except ValueError as error:
        raise Malformed("no known message type") from error
    return Message(
        op,
        kind,
        xid,
        flags,
        chaddr[:6].hex(":"),
        _ip(ciaddr),
        _ip(yiaddr),
        _ip(giaddr),
        options,
    )


@lru_cache(ENCODED)
def _ip(value: str | bytes) -> IPv4Address:
    """Most are the server's or 0.0.0.0, and each takes microseconds to make."""
    return IPv4Address(value)


def _options(parsed: Sequence[Any]) -> dict[str | int, Any]:
    """scapy's list as a dict; the first of a kind counts. What is cut off at the end is left out, not fatal."""
    found: dict[str | int, Any] = {}
    for item in parsed:
        if item == "end":
            break
        if isinstance(item, tuple) and len(item) >= 2:
            found.setdefault(item[0], item[1])
    return found


@dataclass(frozen=True)
class Reply:
    """A message to send."""

    to: Message
    yiaddr: IPv4Address
    siaddr: IPv4Address
    file: bytes
    options: Sequence[Option]
    """In the order in which they shall stand; option 53 first, no end."""


def build(reply: Reply) -> bytes:
    """The UDP payload, padded to SHORTEST bytes."""
    asked = reply.to
    fixed = FIXED.pack(
        2,
        1,
        6,
        0,
        asked.xid,
        0,
        asked.flags,
        (asked.ciaddr if reply.yiaddr != NOWHERE else NOWHERE).packed,
        reply.yiaddr.packed,
        reply.siaddr.packed,
        asked.giaddr.packed,
        bytes.fromhex(asked.mac.replace(":", "")),
        b"",
        reply.file,
        COOKIE,
    )
    return b"".join((fixed, *map(_encoded, reply.options), END)).ljust(SHORTEST, b"\0")


@lru_cache(ENCODED)
def _encoded(option: Option) -> bytes:
    found: bytes = FIELD.i2m(None, [option])
    return found
