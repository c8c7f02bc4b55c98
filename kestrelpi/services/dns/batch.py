"""Many datagrams in one system call each way.

A query that is known costs the kernel's work and a look into a dict. Buffers, addresses and headers are laid out once;
a reply overwrites its query in place, behind the id, and goes back to the address that lies beside it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping

from kestrelpi.services.mmsg import ADDRESS, Messages, sender

log = logging.getLogger("kestrelpi")

AT_ONCE = 64
"""Datagrams that one call takes."""
LONGEST = 1500
"""Bytes of a query, and of a reply that is sent from here."""

Address = tuple[str, int]


class Batch:
    """The datagrams of one non-blocking IPv4 UDP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._bytes = bytearray(AT_ONCE * LONGEST)
        self._addresses = bytearray(AT_ONCE * ADDRESS)
        self._view = memoryview(self._bytes)
        self._into = Messages(sock.fileno(), AT_ONCE, self._bytes, LONGEST, self._addresses)
        self._out = Messages(sock.fileno(), AT_ONCE, self._bytes, LONGEST, self._addresses)

    def exchange(self, known: Mapping[bytes, bytes], unusual: Callable[[bytes, Address], None]) -> tuple[int, int]:
        """Take what waits, at most AT_ONCE, and answer what `known` has; the rest goes to `unusual`, in its order.

        `known` has replies by query, both without the two bytes of the id. Returns how many were taken and how many of
        them answered; never raises for what a network does.
        """
        count = max(self._into.receive(), 0)
        view, lengths, out_lengths = self._view, self._into.received, self._out.sizes
        begin = answered = at = 0
        for index in range(count):
            end = at + lengths[index]
            reply = known.get(bytes(view[at + 2 : end]))
            if reply is None:
                self._send(begin, index)
                begin = index + 1
                unusual(bytes(view[at:end]), self._address(index))
            else:
                view[at + 2 : at + 2 + len(reply)] = reply
                out_lengths[index] = 2 + len(reply)
                answered += 1
            at += LONGEST
        self._send(begin, count)
        return count, answered

    def _send(self, begin: int, end: int) -> None:
        """Send the messages from `begin` up to `end`. One that can't be sent is lost: its client asks again."""
        lost = self._out.send(begin, end)
        if lost:
            log.debug("dns: %d replies could not be sent", lost)

    def _address(self, index: int) -> Address:
        return sender(self._addresses[index * ADDRESS : (index + 1) * ADDRESS])
