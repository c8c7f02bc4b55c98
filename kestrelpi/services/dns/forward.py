"""Asking other resolvers: over UDP, over TCP when the answer was cut off, the next one when the first is silent."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path

log = logging.getLogger("kestrelpi")

RESOLV_CONF = Path("/etc/resolv.conf")
TIMEOUT = 2.0
"""Seconds for one resolver; a client's own patience is 5 s (resolv.conf(5))."""
AT_ONCE = 512
"""Queries that wait for other resolvers at once; more are answered with SERVFAIL."""
TRUNCATED = 0x02
"""TC in the third byte of the header."""

Address = tuple[str, int]


class Unanswered(Exception):
    """No resolver answered."""


def system_resolvers(path: Path, own: IPv4Address) -> list[Address]:
    """The `nameserver` lines of resolv.conf without ourselves, which would be a loop."""
    found = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if address != own:
                found.append((words[1], 53))
    return found


def question(packet: bytes) -> bytes:
    """The bytes of the first question, letters in lower case; empty when there is none."""
    at = 12
    while at < len(packet) and packet[at]:
        at += packet[at] + 1
    return packet[12 : at + 5].lower() if at + 5 <= len(packet) else b""


def answers(reply: bytes, query: bytes) -> bool:
    """Whether `reply` is one to `query`: a reply, the same id, the same question (RFC 5452 section 9.1)."""
    return len(reply) >= 12 and reply[:2] == query[:2] and bool(reply[2] & 0x80) and question(reply) == question(query)


@dataclass(eq=False)
class Forwarder:
    """Asks `resolvers`, or those of the frontend's resolv.conf when there are none."""

    own: IPv4Address
    resolvers: Sequence[Address] = ()
    resolv_conf: Path = RESOLV_CONF
    waiting: int = field(default=0)

    async def ask(self, packet: bytes) -> bytes:
        """The reply to the query in `packet`, with its id; raises Unanswered."""
        if self.waiting >= AT_ONCE:
            raise Unanswered("too many queries wait already")
        self.waiting += 1
        try:
            for resolver in self.resolvers or system_resolvers(self.resolv_conf, self.own):
                # An id of our own and a new port for each query: both must be guessed to forge a reply.
                query = secrets.token_bytes(2) + packet[2:]
                try:
                    reply = await asyncio.wait_for(self._exchange(query, resolver), TIMEOUT)
                except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                    log.debug("dns: resolver %s: %r", resolver[0], error)
                    continue
                return packet[:2] + reply[2:]
        finally:
            self.waiting -= 1
        raise Unanswered("no resolver answered")

    async def _exchange(self, query: bytes, resolver: Address) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(resolver)  # only this resolver's packets come in, and a closed port is an error at once
            await loop.sock_sendall(sock, query)
            reply = b""
            while not answers(reply, query):
                reply = await loop.sock_recv(sock, 65535)
        return await self._over_tcp(query, resolver) if reply[2] & TRUNCATED else reply

    async def _over_tcp(self, query: bytes, resolver: Address) -> bytes:
        reader, writer = await asyncio.open_connection(*resolver)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            reply = b""
            while not answers(reply, query):
                reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            return reply
        finally:
            writer.close()
