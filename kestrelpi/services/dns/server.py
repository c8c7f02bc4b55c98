"""The DNS server: UDP and TCP on one port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from functools import partial
from ipaddress import IPv4Address
from typing import Any, Protocol

from dnslib import RCODE, DNSError

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.services.dns.answers import Answers
from kestrelpi.services.dns.batch import AT_ONCE, LONGEST, Batch
from kestrelpi.services.dns.forward import Address, Forwarder, Unanswered, question
from kestrelpi.services.dns.zone import Registry, Zone, failure, parse, payload_limit

log = logging.getLogger("kestrelpi")

A_TURN = 8
"""Batches of packets that are taken before others in the event loop have their turn."""
IDLE = 10.0
"""Seconds after which a silent TCP connection is closed."""
CONNECTIONS = 128
RECEIVE_BUFFER = 1 << 20


class Directory(Protocol):
    """Who is registered, now."""

    @property
    def registry(self) -> Registry: ...


class DnsServer:
    """Answers for the nodes' names until `stop`, and forwards other names for clients of the nodes' network."""

    def __init__(self, config: Config, directory: Directory, resolvers: Sequence[Address] = ()) -> None:
        """`resolvers`: whom to ask for other names; default: network.nameservers, else the frontend's own."""
        self.config = config
        self.counters: Counter[str] = Counter()
        self._directory = directory
        self._zone = Zone.of(config)
        chosen = resolvers or [(str(address), 53) for address in config.network.nameservers]
        self._forwarder = Forwarder(config.listen, chosen)
        self._known = Answers()
        self._known_of: Registry | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sock: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Open the port and serve; raises UserError when it is taken."""
        listen, port = str(self.config.listen), self.config.services.dns.port
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((listen, port))
            self._tcp = await asyncio.start_server(self._connection, listen, port)
        except OSError as error:
            sock.close()
            fix = (
                f"see who has it with: ss -lunpt 'sport = :{port}'; end it, or set services.dns.port or enabled: false"
            )
            if isinstance(error, PermissionError):
                fix = "run kestrelpi serve as root, or set services.dns.port above 1023"
            what = f"DNS can't listen on {listen}:{port}: {error.strerror}"
            raise UserError(what, fix=fix) from error
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._readable, sock, Batch(sock))

    async def stop(self) -> None:
        """Close the port and drop what still waits for other resolvers."""
        if self._sock:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        if self._tcp:
            self._tcp.close()
            self._tcp = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _readable(self, sock: socket.socket, batch: Batch) -> None:
        known = self._remembered(self._directory.registry)
        unusual = partial(self._unusual, sock)
        for _ in range(A_TURN):
            taken, answered = batch.exchange(known.exact, unusual)
            self.counters["answered"] += answered
            if taken < AT_ONCE or answered < taken:  # an unusual one costs as much as a hundred usual ones
                return

    def _unusual(self, sock: socket.socket, packet: bytes, client: Address) -> None:
        reply = self._known.spelled(packet)
        if reply:
            self.counters["answered"] += 1
        else:
            reply = self._local(packet, client[0])
        if reply is None:
            self._later(self._forward_udp(sock, packet, client))
        elif reply:
            self._reply(sock, reply, client)

    def _remembered(self, registry: Registry) -> Answers:
        """What was answered from this registry. A new registry, a new object, ends all answers."""
        if registry is not self._known_of:
            self._known.forget()
            self._known_of = registry
        return self._known

    def _reply(self, sock: socket.socket, reply: bytes, client: Address) -> None:
        try:
            sock.sendto(reply, client)
        except OSError as error:
            log.debug("dns: reply to %s: %s", client[0], error)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _local(self, packet: bytes, client: str, limit: int = 0) -> bytes | None:
        """Our own answer; None: ask others; empty: none at all. `limit`: bytes, 0: what the query allows over UDP."""
        registry = self._directory.registry
        known = self._remembered(registry)
        try:
            query = parse(packet)
        except DNSError as error:
            self.counters["malformed"] += 1
            log.debug("dns: dropped a packet from %s: %s", client, error)
            return b""
        if query.header.qr:
            self.counters["malformed"] += 1
            return b""
        answer = self._zone.answer(query, registry)
        if answer is None:
            if self._may_forward(client):
                return None
            self.counters["refused"] += 1
            return bytes(failure(query, RCODE.REFUSED).pack())
        reply = fitted(bytes(answer.pack()), limit or payload_limit(query))
        self.counters["answered"] += 1
        if not limit and len(reply) <= LONGEST:
            known.remember(packet, reply)
        return reply

    def _may_forward(self, client: str) -> bool:
        """Only the nodes' network and the frontend itself: an open resolver is a weapon."""
        address = IPv4Address(client)
        return address in self.config.network.address.network or address.is_loopback or address == self.config.listen

    async def _forward_udp(self, sock: socket.socket, packet: bytes, client: Address) -> None:
        reply = await self._ask(packet)
        if self._sock is sock:
            self._reply(sock, fitted(reply, payload_limit(parse(packet))), client)

    async def _ask(self, packet: bytes) -> bytes:
        try:
            reply = await self._forwarder.ask(packet)
        except Unanswered as error:
            self.counters["unanswered"] += 1
            log.debug("dns: %s", error)
            return bytes(failure(parse(packet), RCODE.SERVFAIL).pack())
        self.counters["forwarded"] += 1
        return reply

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: length-prefixed queries until the client ends it or is silent (RFC 7766)."""
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS:
                with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                    await self._converse(reader, writer)
        finally:
            self._connections -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        while True:
            async with asyncio.timeout(IDLE):
                packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            reply = self._local(packet, client, 65535)
            if reply is None:
                reply = await self._ask(packet)
            if not reply:
                return
            writer.write(len(reply).to_bytes(2, "big") + reply)
            async with asyncio.timeout(IDLE):
                await writer.drain()


def fitted(reply: bytes, limit: int) -> bytes:
    """`reply`, or when it is longer than `limit` bytes its header and question with TC set: the client asks by TCP."""
    if len(reply) <= limit:
        return reply
    asked = question(reply)
    counts = b"\0\1\0\0\0\0\0\0" if asked else bytes(8)
    return reply[:2] + bytes([reply[2] | 0x02, reply[3]]) + counts + reply[12 : 12 + len(asked)]
