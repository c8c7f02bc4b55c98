"""The TFTP server: one loop, a few sockets that transfers share, prepared packets.

The loop polls, though the kernel has epoll: a socket that epoll watches calls it for each packet that comes or goes,
also while the loop is busy; poll watches only while it waits. With 256 Pis that was 2 to 16 % of the processor time.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import select
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kestrelpi.errors import UserError
from kestrelpi.services.tftp.blocks import DEFAULT_BUDGET, BlockCache
from kestrelpi.services.tftp.lookup import Refused, look_up
from kestrelpi.services.tftp.packets import Malformed, Request, error, parse_request
from kestrelpi.services.tftp.port import Ends, Port
from kestrelpi.services.tftp.session import Outcome, Session
from kestrelpi.services.tftp.sockets import Address, local_address, open_listener, raise_file_limit
from kestrelpi.services.tftp.source import EventKind, FileSource, TransferEvent

log = logging.getLogger(__name__)

RESERVED_FILES = 64
"""File descriptors that are not for transfers."""
REMEMBERED = 4096
"""Clients at most of which it is known from which port they had their last file."""
REQUESTS_A_TURN = 32
REQUESTS_TIME = 0.001
"""Seconds for requests in a turn while transfers run: a flood of them must not starve those. A kernel has 10,000
blocks, each waits for a turn, and a Pi gives a file 30 s."""
QUIET = 1.0
"""Seconds between two events about refused or malformed packets; all of them are counted."""
COUNTERS_EVERY = 5.0
FOR_EVER = float("inf")
STOP, RELOAD = b"s", b"r"
"""What `serve` reads from its control descriptor; its end means STOP too."""


@dataclass(eq=False)
class Transfer:
    """A session with what the server needs to end it and to tell about it."""

    session: Session
    port: Port
    client: Address
    request: bytes
    path: str


@dataclass
class Limits:
    """How much the server takes on."""

    sessions: int = 0
    """Transfers at once; 0: as many as the process may open files."""
    per_client: int = 0
    """Transfers at once for one address; 0: a quarter of `sessions`, at least 64. A Pi has one or two."""
    memory: int = DEFAULT_BUDGET
    """Bytes for prepared packets."""

    def filled(self) -> Limits:
        """The defaults worked out; raises this process's limit of open files."""
        sessions = self.sessions or max(raise_file_limit() - RESERVED_FILES, 16)
        return Limits(sessions, self.per_client or max(64, sessions // 4), self.memory)


@dataclass(eq=False)
class TftpServer:
    """Serves what `source` finds; `event` is called for what happens to transfers, in the server's thread."""

    listen: str
    port: int
    source: FileSource
    event: Callable[[TransferEvent], None]
    listener: socket.socket | None = None
    """An already bound socket (several processes share a port); else `listen` and `port` are opened."""
    limits: Limits = field(default_factory=Limits)
    counted: Callable[[Mapping[str, int]], None] | None = None
    """Called with `counters` every few seconds when they changed."""
    clock: Callable[[], float] = time.monotonic
    counters: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.limits = self.limits.filled()
        self._cache = BlockCache(self.limits.memory)
        self._transfers: dict[Address, Transfer] = {}
        self._ports: dict[str, tuple[Port, Port]] = {}
        """By the address of ours that they are at."""
        self._by_fd: dict[int, Port] = {}
        self._poll = select.poll()
        self._per_host: Counter[str] = Counter()
        self._timers: list[tuple[float, int, Transfer]] = []
        self._order = 0
        self._lately: OrderedDict[Address, int] = OrderedDict()
        self._next_quiet: dict[EventKind, float] = {}
        self._told: Counter[str] = Counter()
        self._tell_at = 0.0

    @property
    def active(self) -> int:
        """Transfers that run now."""
        return len(self._transfers)

    @property
    def memory(self) -> int:
        """Bytes held in prepared packets."""
        return self._cache.held

    def serve(self, stop_fd: int, outlive: float = 0.0) -> None:
        """Serve until STOP, or the end of file, is read from `stop_fd`; RELOAD makes the source reload.

        At the end of file (whoever started us died) transfers may go on for `outlive` seconds, without the port: a Pi 3
        in the middle of a file would be dead. Raises UserError when the port can't be had.
        """
        listener = self.listener or open_listener(self.listen, self.port)
        poll = self._poll
        with listener:
            poll.register(listener, select.POLLIN)
            poll.register(stop_fd, select.POLLIN)
            try:
                if self._loop(listener, stop_fd) == b"" and outlive:
                    poll.unregister(stop_fd)
                    poll.unregister(listener)
                    listener.close()
                    self._loop(listener, stop_fd, self.clock() + outlive)
            finally:
                self._transfers.clear()
                for port in self._by_fd.values():
                    port.close()

    def _loop(self, listener: socket.socket, stop_fd: int, deadline: float = FOR_EVER) -> bytes:
        """Until told to stop; how. With a deadline: only until the last transfer ends."""
        poll, ports, clock = self._poll.poll, self._by_fd, self.clock
        listening = listener.fileno()
        timers = self._timers
        now = clock()
        while deadline == FOR_EVER or (self._transfers and now < deadline):
            ready = poll(math.ceil(self._wait() * 1000))
            now = clock()
            for fd, what in ready:
                port = ports.get(fd)
                if port:
                    if what & select.POLLERR:
                        self._over(port.refused(), now)
                    self._over(port.exchange(now), now)
                elif fd == listening:
                    self._requests(listener, clock())
                elif fd == stop_fd:
                    words = os.read(stop_fd, 64)
                    if not words or STOP in words:
                        return words
                    self._reload()
            while timers and timers[0][0] <= now:
                self._tick(heapq.heappop(timers)[2], now)
            if now >= self._tell_at:
                self._tell(now)
        return b""

    def _wait(self) -> float:
        """Seconds until the next timer."""
        first = self._timers[0][0] if self._timers else float("inf")
        return max(0.0, min(first, self._tell_at) - self.clock())

    def _reload(self) -> None:
        try:
            self.source.reload()
        except UserError as problem:
            log.error("TFTP goes on with what it knew: %s", problem)

    def _requests(self, listener: socket.socket, now: float) -> None:
        """Take what waits on the port, a bounded number of it."""
        for number in range(REQUESTS_A_TURN):
            if number and self._transfers and self.clock() - now > REQUESTS_TIME:
                return
            try:
                packet, ancillary, _, client = listener.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError as problem:  # an ICMP error for something sent earlier
                log.debug("TFTP port: %s", problem)
                continue
            self._request(packet, client, local_address(ancillary), now)

    def _request(self, packet: bytes, client: Address, local: str, now: float) -> None:
        try:
            request = parse_request(packet)
        except Malformed as problem:
            self._quietly("malformed", "", client, now, str(problem))
            return
        known = self._transfers.get(client)
        if known:  # perhaps its last ACK waits, which was sent before this request
            self._over(known.port.exchange(now), now)
            known = self._transfers.get(client)
        if known:
            if known.request == packet and known.session.repeated(now):
                self.counters["repeated"] += 1  # the answer is on its way, and has its own timer
                return
            self._end(known, "aborted", now)
        if len(self._transfers) >= self.limits.sessions or self._per_host[client[0]] >= self.limits.per_client:
            # No ERROR: a Pi asks again after 2 s, but takes an ERROR for its answer.
            self._quietly("refused", request.path, client, now, "too many transfers at once")
            return
        try:
            port = self._port(local, client)
        except OSError as problem:
            self._quietly("refused", request.path, client, now, f"no socket: {problem.strerror}")
            return
        self._start(request, packet, port, client, now)

    def _port(self, local: str, client: Address) -> Port:
        """The port at our address `local` for the next file of a client; raises OSError.

        One port serves all, since packets that wait together cost the least; but a client that has one port for all its
        files, as a Pi 3's ROM, has them from two in turn, so that none is taken for the last one (RFC 1350 section 4).
        """
        if local not in self._ports:
            self._ports[local] = Port(local), Port(local)
            for port in self._ports[local]:
                self._by_fd[port.fileno()] = port
                self._poll.register(port, select.POLLIN)
        number = 1 - self._lately.pop(client, 1)
        self._lately[client] = number
        if len(self._lately) > REMEMBERED:
            self._lately.popitem(last=False)
        return self._ports[local][number]

    def _start(self, request: Request, packet: bytes, port: Port, client: Address, now: float) -> None:
        """Answer a request."""
        try:
            prepared, agreed = look_up(request, client[0], self.source, self._cache)
        except Refused as refused:
            self.counters[refused.event.kind] += 1
            port.send(error(refused.code, refused.text), client)
            self.event(refused.event)
            return
        session = Session(lambda packet: port.send(packet, client), prepared, agreed.block, agreed.oack, now)
        self._admit(Transfer(session, port, client, packet, request.path), f"blksize {agreed.block}")

    def _admit(self, transfer: Transfer, agreed: str) -> None:
        self._transfers[transfer.client] = transfer
        self._per_host[transfer.client[0]] += 1
        transfer.port.add(transfer.client, transfer.session)
        self._arm(transfer)
        self.counters["started"] += 1
        self.event(TransferEvent("start", transfer.path, transfer.client[0], detail=agreed))
        transfer.session.begin()

    def _arm(self, transfer: Transfer) -> None:
        self._order += 1  # ties must not compare transfers
        heapq.heappush(self._timers, (transfer.session.due, self._order, transfer))

    def _tick(self, transfer: Transfer, now: float) -> None:
        if self._transfers.get(transfer.client) is not transfer:
            return  # it ended; its timer was left to run out
        outcome = transfer.session.tick(now)
        if outcome:
            self._end(transfer, outcome, now)
        else:
            self._arm(transfer)

    def _over(self, ends: Ends, now: float) -> None:
        for client, outcome in ends:
            self._end(self._transfers[client], outcome, now)

    def _end(self, transfer: Transfer, outcome: Outcome, now: float) -> None:
        session = transfer.session
        self._forget(transfer)
        sent = session.prepared.size if outcome == "done" else session.acknowledged
        self.counters[outcome] += 1
        self.counters["bytes"] += sent
        self.counters["resent"] += session.resent
        seconds = now - session.started
        self.event(TransferEvent(outcome, transfer.path, transfer.client[0], sent, seconds, session.detail))

    def _forget(self, transfer: Transfer) -> None:
        del self._transfers[transfer.client]
        transfer.port.remove(transfer.client)
        host = transfer.client[0]
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]
        self._cache.release(transfer.session.prepared)

    def _quietly(self, kind: EventKind, path: str, client: Address, now: float, why: str) -> None:
        """Count what a hostile client can send in masses, and tell of it once a second."""
        self.counters[kind] += 1
        if now >= self._next_quiet.get(kind, 0.0):
            self._next_quiet[kind] = now + QUIET
            self.event(TransferEvent(kind, path, client[0], detail=f"{why} ({self.counters[kind]} so far)"))

    def _tell(self, now: float) -> None:
        self._tell_at = now + COUNTERS_EVERY
        if self.counted and self.counters != self._told:
            self._told = Counter(self.counters)
            self.counted(dict(self.counters, active=self.active, memory=self.memory))
