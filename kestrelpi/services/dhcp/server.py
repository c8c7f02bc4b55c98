"""The DHCP server: sockets, timers and the leases file around the rules of `policy`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.nodes import leases
from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.models import Identity
from kestrelpi.services.admission import REMEMBERED
from kestrelpi.services.dhcp import probe, wire
from kestrelpi.services.dhcp.answer import Answer, Directory
from kestrelpi.services.dhcp.book import LeaseBook
from kestrelpi.services.dhcp.notices import Notices
from kestrelpi.services.dhcp.offer import site
from kestrelpi.services.dhcp.packet import NOWHERE, Kind, Malformed, Message, parse
from kestrelpi.services.dhcp.policy import Policy
from kestrelpi.services.dhcp.proxy import Proxy
from kestrelpi.services.dhcp.ratelimit import RateLimit
from kestrelpi.services.dhcp.wire import Source
from kestrelpi.services.turns import Turns

log = logging.getLogger("kestrelpi")

WRITE_AFTER = 0.5
"""Seconds from a change of a lease to the file: what a kill -9 can lose."""
A_TURN = 64
"""Packets that are taken before others in the event loop have their turn."""
RATE = 20.0
"""Messages a second from one MAC; a Pi sends one in 4 s."""


class DhcpServer:
    """Answers DHCP on one interface until `stop`.

    `event` hears of the stages of each Pi's boot loader (MAC, stage, detail), `sighted` of what its option 97 tells,
    `note` of what is odd about a Pi (MAC, what, detail), `foreign` of other servers (address, whether a boot proxy).
    """

    def __init__(
        self,
        config: Config,
        directory: Directory,
        leases_file: Path,
        event: Callable[[str, Stage, str], None],
        sighted: Callable[[str, Identity], None],
        clock: Callable[[], float] = time.time,
        note: Callable[[str, Sign, str], None] = lambda mac, sign, detail: None,
        foreign: Callable[[IPv4Address, bool], None] = lambda server, proxy: None,
        turns: Turns | None = None,
    ) -> None:
        """`turns`: whose turn it is to load; None: everybody's at once."""
        self.config = config
        self.notices = Notices(clock, heard=foreign)
        self._file = leases_file
        self._clock = clock
        own = {config.listen, config.network.address.ip, config.network.gateway}
        self._book = LeaseBook(
            config.pool, lambda address: address in own or directory.node_by_address(address) is not None
        )
        rules = Proxy if config.services.dhcp.proxy else Policy
        self._policy = rules(config, site(config), directory, self._book, event, sighted, self.notices, note, turns)
        self._turns = turns
        self._held: dict[str, tuple[Message, Source]] = {}
        """The last DISCOVERs of boot loaders whose turn it isn't yet."""
        if turns:
            turns.called = self._called
            turns.gone = self._gone
        self._rate = RateLimit(RATE)
        self._delayed: dict[str, tuple[Message, asyncio.TimerHandle]] = {}
        self._sock: socket.socket | None = None
        self._link: socket.socket | None = None
        self._prober: probe.Prober | None = None
        self._looked_ahead = float("-inf")
        self._probing: set[str] = set()
        """MACs whose new address is being probed."""
        self._writer: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def counters(self) -> Counter[str]:
        """Messages by kind, and what was dropped and why."""
        return self._policy.counters

    @property
    def foreign_servers(self) -> Mapping[IPv4Address, float]:
        """Other DHCP servers that were heard, with the Unix time of the last message."""
        return self.notices.foreign_servers

    def met(self, mac: str, address: IPv4Address) -> None:
        """Note that `mac` has an address that another server gave it: like a lease, so that it can be registered."""
        now = self._clock()
        lease = self.config.services.dhcp.lease
        held = self._book.get(mac)
        if held is None and self._book.full(now):
            return
        if held is None or held.address != address or held.expires - now < lease / 2:
            self._book.grant(mac, address, now + lease)

    async def start(self) -> None:
        """Read the leases, open the sockets and serve. Raises UserError: no such interface, port taken."""
        self._book.load(leases.read(self._file).values(), self._clock())
        port = self.config.services.dhcp.port
        loop = asyncio.get_running_loop()
        if self.config.listen.is_loopback:
            self._sock = wire.open_server(str(self.config.listen), port, "")
        else:
            interface = self.config.network.interface or wire.interface_of(self.config.listen)
            self._sock = wire.open_server("0.0.0.0", port, interface)
            self._link = wire.open_link(interface)
            arp = None if self.config.services.dhcp.proxy else probe.open_arp(interface)
            self._prober = probe.Prober(arp) if arp else None
        loop.add_reader(self._sock, self._readable, self._sock)
        if self._link:
            loop.add_reader(self._link, self._heard, self._link)
        if self._turns:
            self._turns.begin()
        self._writer = asyncio.create_task(self._write_leases())

    async def stop(self) -> None:
        """Close the sockets and write the leases."""
        loop = asyncio.get_running_loop()
        for _, handle in self._delayed.values():
            handle.cancel()
        if self._prober:
            self._prober.close()
            self._prober = None
        for sock in (self._sock, self._link):
            if sock:
                loop.remove_reader(sock)
                sock.close()
        self._sock = self._link = None
        self._stopping.set()
        if self._writer:
            await self._writer
            self._writer = None

    async def _write_leases(self) -> None:
        """Write what changed, a few times a second at most, and a last time at the end."""
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), WRITE_AFTER)
            try:
                await self._write()
            except OSError as error:
                self._book.changed = True
                self.notices.warn("leases", f"the leases can't be written to {self._file}: {error.strerror}")

    async def _write(self) -> None:
        """Write the file, if there is something new, in a thread: fsync may take its time, and Pis don't wait."""
        if self._book.changed:
            self._book.changed = False
            await asyncio.to_thread(leases.write, self._file, self._book.all())

    def _readable(self, sock: socket.socket) -> None:
        for packet, source in wire.arrived(sock, A_TURN):
            self._received(packet, source)

    def _received(self, packet: bytes, source: Source) -> None:
        now = self._clock()
        try:
            asked = parse(packet)
        except Malformed as error:
            self.counters["malformed"] += 1
            log.debug("dhcp: dropped a packet from %s: %s", source[0], error)
            return
        if not self._rate.allows(asked.mac, now):
            self.counters["limited"] += 1
            return
        if asked.kind is Kind.DISCOVER and asked.mac in self._probing:
            return  # its answer is on the way
        answer = self._policy.answer(asked, now)
        if answer is None and self._turns and self._turns.waits(asked.mac):
            self._cancel(asked.mac)
            if len(self._held) >= REMEMBERED:  # some of them were let in without asking again
                self._held = {mac: one for mac, one in self._held.items() if self._turns.waits(mac)}
            self._held[asked.mac] = asked, source
        else:
            self._held.pop(asked.mac, None)
            self._deliver(answer, asked, source)

    def _called(self, macs: Sequence[str]) -> None:
        """It is their turn now: each has asked already, and listens."""
        for mac in macs:
            if mac in self._held:
                asked, source = self._held.pop(mac)
                self._deliver(self._policy.called(asked, self._clock()), asked, source)

    def _gone(self, macs: Sequence[str]) -> None:
        for mac in macs:
            self._held.pop(mac, None)
            self._policy.note(mac, Sign.GAVE_UP, "")

    def _cancel(self, mac: str) -> None:
        """Drop a reply that waits for its delay: it answers an older message."""
        if mac in self._delayed:
            self._delayed.pop(mac)[1].cancel()

    def _on_its_way(self, asked: Message) -> bool:
        """Whether the answer to the same message waits for its delay.

        A repetition doesn't put it off: a ROM asks every 5 s, and would never be answered if its delay were longer.
        """
        before = self._delayed.get(asked.mac)
        return before is not None and (before[0].kind, before[0].xid) == (asked.kind, asked.xid)

    def _deliver(self, answer: Answer | None, asked: Message, source: Source) -> None:
        """Send it when its time has come; a new address of the pool once nobody is found to use it."""
        if answer is None:
            return
        if answer.delay and self._on_its_way(asked):
            return
        self._cancel(asked.mac)
        if answer.probe and self._prober and not self._prober.busy:
            self._probing.add(asked.mac)
            self._probe_ahead()
            self._prober.probe(answer.address, asked.mac, partial(self._probed, answer, asked, source, self._clock()))
        elif answer.delay:
            loop = asyncio.get_running_loop()
            handle = loop.call_later(answer.delay, self._send, answer, asked, source)
            self._delayed[asked.mac] = asked, handle
        else:
            self._send(answer, asked, source)

    def _probe_ahead(self) -> None:
        """One new Pi may be the first of a room: have the rest of the pool probed before it is asked for."""
        now, pool = self._clock(), self.config.pool
        if self._prober and now - self._looked_ahead > probe.FRESH / 2 and len(pool) <= probe.AHEAD:
            self._looked_ahead = now
            self._prober.ahead(one for one in pool if self._book.free_for("", one, now))

    def _probed(self, answer: Answer, asked: Message, source: Source, since: float, user: str) -> None:
        self._probing.discard(asked.mac)
        now = self._clock()
        if user:
            self._deliver(self._policy.taken(asked, answer, user, now), asked, source)
        else:
            left = min(answer.delay, max(0.0, answer.delay - (now - since)))
            self._deliver(replace(answer, probe=False, delay=left), asked, source)

    def _send(self, answer: Answer, asked: Message, source: Source) -> None:
        self._delayed.pop(asked.mac, None)
        if self._sock is None or self._framed(answer, asked, source):
            return
        try:
            self._sock.sendto(answer.packet, wire.destination(asked.giaddr, source, self.config.services.dhcp.port))
            self.counters["sent"] += 1
        except OSError as error:
            self.counters["unsent"] += 1
            self.notices.warn("send", f"a reply to {asked.mac} can't be sent: {error.strerror}")

    def _framed(self, answer: Answer, asked: Message, source: Source) -> bool:
        """Send to the client's MAC, if it has no address yet and doesn't want a broadcast. False: send it otherwise."""
        if self._link is None or source != ("0.0.0.0", wire.CLIENT_PORT) or asked.giaddr != NOWHERE:
            return False
        if asked.broadcast or answer.address == NOWHERE:  # a NAK, or a proxy's offer
            return False
        mac = bytes.fromhex(asked.mac.replace(":", ""))
        ours = wire.hardware_address(self._link)
        try:
            self._link.send(wire.frame(ours, mac, self.config.listen, answer.address, answer.packet))
        except OSError as error:
            log.debug("dhcp: no frame to %s: %s", asked.mac, error)
            return False
        self.counters["sent"] += 1
        return True

    def _heard(self, link: socket.socket) -> None:
        """Something went from a DHCP server to a client: was it another server's?"""
        for raw, (_, _, direction, *_) in wire.arrived(link, A_TURN):
            if direction == socket.PACKET_OUTGOING:  # our own frames, which a packet socket hears too
                continue
            try:
                said = parse(wire.udp_payload(raw))
            except Malformed:
                continue
            if said.op == 2:
                self._policy.answer(said, self._clock())
