"""Is an address in use already? ARP probes on the wire (RFC 5227 section 2.1.1, quicker) before it is offered."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

log = logging.getLogger("kestrelpi")

ETHERNET_ARP = 0x0806
ARP = struct.Struct("!HHBBH6s4s6s4s")
"""Hardware and protocol type and length, operation, sender's MAC and address, target's MAC and address (RFC 826)."""
REQUEST = 1
PROBES = 2
SPACING = 0.05
"""Seconds from one probe to the next, and from the last one to the verdict: a Pi's boot loader waits too."""
DURATION = PROBES * SPACING
LIMIT = 64
"""Addresses that are probed at once: 640 a second. Beyond that no address is probed, and nobody waits."""
A_TURN = 64
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
"""linux/socket.h, linux/if_packet.h"""

Verdict = Callable[[str], None]
"""Takes the MAC that uses the address; empty: nobody answered."""


@dataclass
class Running:
    """One address that is being probed for the client with `mac`."""

    mac: str
    verdict: Verdict
    timer: asyncio.TimerHandle | None = None
    sent: int = 0


class Prober:
    """Probes addresses on one interface, in the event loop that runs when it is made."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock`: from open_arp."""
        self._sock = sock
        self._own: bytes = sock.getsockname()[4]
        self._running: dict[IPv4Address, Running] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        """Forget what is under way: those verdicts never come."""
        for one in self._running.values():
            if one.timer:
                one.timer.cancel()
        self._running.clear()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    @property
    def busy(self) -> bool:
        """Whether no more can be probed now."""
        return len(self._running) >= LIMIT

    def probe(self, address: IPv4Address, mac: str, verdict: Verdict) -> None:
        """Ask who has `address`; `mac` itself may. `verdict` is told at once of a user, or after DURATION of none."""
        self._running[address] = Running(mac, verdict)
        self._next(address)

    def _next(self, address: IPv4Address) -> None:
        one = self._running[address]
        if one.sent == PROBES:
            del self._running[address]
            one.verdict("")
            return
        one.sent += 1
        one.timer = self._loop.call_later(SPACING, self._next, address)
        try:
            self._sock.send(probe_frame(self._own, address))
        except OSError as error:  # a full queue or a link that is down: the next probe may pass
            log.debug("dhcp: no probe of %s: %s", address, error)

    def _readable(self) -> None:
        for _ in range(A_TURN):
            try:
                frame = self._sock.recv(64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("dhcp: %s", error)
                return
            self._heard(frame)

    def _heard(self, frame: bytes) -> None:
        """ARP of somebody who has an address; one who probes it, too (RFC 5227), has none and isn't meant."""
        found = user_of(frame)
        if found is None or found[1] == self._own:
            return
        one = self._running.get(found[0])
        mac = found[1].hex(":")
        if one is None or one.mac == mac:
            return
        del self._running[found[0]]
        if one.timer:
            one.timer.cancel()
        one.verdict(mac)


def open_arp(interface: str) -> socket.socket | None:
    """A packet socket for ARP on `interface`; None without the right to."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        return None
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.bind((interface, ETHERNET_ARP))
    return sock


def probe_frame(own: bytes, address: IPv4Address) -> bytes:
    """An ARP probe: a broadcast request whose sender has no address, so that nobody's cache takes harm."""
    arp = ARP.pack(1, 0x0800, 6, 4, REQUEST, own, bytes(4), bytes(6), address.packed)
    return b"\xff" * 6 + own + struct.pack("!H", ETHERNET_ARP) + arp


def user_of(frame: bytes) -> tuple[IPv4Address, bytes] | None:
    """The address and the MAC that the sender of an ARP frame has; None: it is none, or the sender has no address."""
    if len(frame) < 14 + ARP.size or frame[12:14] != ETHERNET_ARP.to_bytes(2, "big"):
        return None
    kind, protocol, length, width, _, mac, address, _, _ = ARP.unpack_from(frame, 14)
    if (kind, protocol, length, width) != (1, 0x0800, 6, 4) or address == bytes(4):
        return None
    return IPv4Address(address), mac
