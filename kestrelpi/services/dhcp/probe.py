"""Is an address in use already? ARP probes on the wire (RFC 5227 section 2.1.1, quicker) before it is offered."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import islice

log = logging.getLogger("kestrelpi")

ETHERNET_ARP = 0x0806
ARP = struct.Struct("!HHBBH6s4s6s4s")
"""Hardware and protocol type and length, operation, sender's MAC and address, target's MAC and address (RFC 826)."""
REQUEST = 1
PROBES = 2
SPACING = 0.05
"""Seconds from one probe to the next, and from the last one to the verdict: a Pi's boot loader waits too."""
DURATION = PROBES * SPACING
LIMIT = 4096
"""Addresses that are probed at once; beyond that none is probed, and nobody waits."""
FRESH = 30.0
"""Seconds for which a verdict holds."""
AHEAD = 1024
"""Addresses at most that are probed before anybody asks for them."""
A_STEP, STEP = 64, 0.005
"""So many of them go out at once, and seconds to the next: a card's queue must not overflow."""
A_TURN = 64
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
"""linux/socket.h, linux/if_packet.h"""

Verdict = Callable[[str], None]
"""Takes the MAC that uses the address; empty: nobody answered."""


@dataclass
class Running:
    """One address that is being probed."""

    mac: str = ""
    """For whom; empty: nobody yet."""
    verdict: Verdict | None = None
    sent: int = 0


class Prober:
    """Probes addresses on one interface, in the event loop that runs when it is made.

    When one Pi asks, the whole room may be about to: so its server has other addresses probed `ahead`. A thousand Pis
    then wait for one round of probes, not each for its own.
    """

    def __init__(self, sock: socket.socket) -> None:
        """`sock`: from open_arp."""
        self._sock = sock
        self._own: bytes = sock.getsockname()[4]
        self._running: dict[IPv4Address, Running] = {}
        self._due: deque[tuple[float, IPv4Address, Running]] = deque()
        """What is to be looked at again, in the order of its times."""
        self._ahead: deque[IPv4Address] = deque()
        self._known: dict[IPv4Address, tuple[float, str]] = {}
        """When an address was probed, and who uses it."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Forget what is under way: those verdicts never come."""
        if self._timer:
            self._timer.cancel()
        self._running.clear()
        self._due.clear()
        self._ahead.clear()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    @property
    def busy(self) -> bool:
        """Whether no more can be probed now."""
        return len(self._running) >= LIMIT

    def probe(self, address: IPv4Address, mac: str, verdict: Verdict) -> None:
        """Ask who has `address`; `mac` itself may. `verdict` is told of a user at once, of none after DURATION; of both
        before this returns, when the address was probed a moment ago."""
        user = self._fresh(address)
        if user is not None:
            verdict("" if user == mac else user)
            return
        one = self._running.setdefault(address, Running())
        one.mac, one.verdict = mac, verdict
        if not one.sent:
            self._send(address, one)

    def ahead(self, addresses: Iterable[IPv4Address]) -> None:
        """Probe addresses that somebody may want soon."""
        self._known = {one: known for one, known in self._known.items() if self._fresh(one) is not None}
        wanted = (one for one in addresses if one not in self._running and one not in self._known)
        self._ahead = deque(islice(wanted, AHEAD))
        self._arm()

    def _fresh(self, address: IPv4Address) -> str | None:
        """Who uses the address, by a verdict that still holds; None: there is none."""
        at, user = self._known.get(address, (float("-inf"), ""))
        return user if self._loop.time() - at < FRESH else None

    def _send(self, address: IPv4Address, one: Running) -> None:
        one.sent += 1
        self._due.append((self._loop.time() + SPACING, address, one))
        self._arm()
        try:
            self._sock.send(probe_frame(self._own, address))
        except OSError as error:  # a full queue or a link that is down: the next probe may pass
            log.debug("dhcp: no probe of %s: %s", address, error)

    def _arm(self) -> None:
        if self._timer is None and (self._ahead or self._due):
            delay = STEP if self._ahead else max(0.0, self._due[0][0] - self._loop.time())
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for _ in range(min(A_STEP, len(self._ahead))):
            address = self._ahead.popleft()
            if not self.busy and address not in self._running:
                self._send(address, self._running.setdefault(address, Running()))
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            _, address, one = self._due.popleft()
            if self._running.get(address) is not one:
                continue
            if one.sent < PROBES:
                self._send(address, one)
            else:
                self._end(address, one, "")
        self._arm()

    def _end(self, address: IPv4Address, one: Running, user: str) -> None:
        del self._running[address]
        self._known[address] = self._loop.time(), user
        if one.verdict:
            one.verdict(user)

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
        if one is not None and one.mac != mac:
            self._end(found[0], one, mac)


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
