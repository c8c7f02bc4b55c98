"""Many datagrams in one system call each way: recvmmsg(2) and sendmmsg(2), which Python's socket doesn't have.

A query that is known costs the kernel's work and a look into a dict. Buffers, addresses and headers are laid out once;
a reply overwrites its query in place, behind the id, and goes back to the address that lies beside it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping

log = logging.getLogger("kestrelpi")

AT_ONCE = 64
"""Datagrams that one call takes."""
LONGEST = 1500
"""Bytes of a query, and of a reply that is sent from here."""
ADDRESS = 16
"""Bytes of a sockaddr_in (ip(7)): family, port, address, padding."""

Address = tuple[str, int]


class _Vector(ctypes.Structure):
    """struct iovec (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr (recvmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2))."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


class Batch:
    """The datagrams of one non-blocking IPv4 UDP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._bytes = bytearray(AT_ONCE * LONGEST)
        self._addresses = bytearray(AT_ONCE * ADDRESS)
        self._view = memoryview(self._bytes)
        base = ctypes.addressof((ctypes.c_char * len(self._bytes)).from_buffer(self._bytes))
        names = ctypes.addressof((ctypes.c_char * len(self._addresses)).from_buffer(self._addresses))
        self._into, self._into_vectors = _messages(base, names)
        self._out, self._out_vectors = _messages(base, names)
        self._lengths = memoryview(self._into).cast("B").cast("I")
        self._out_lengths = (
            memoryview(self._out_vectors).cast("B").cast("Q" if ctypes.sizeof(ctypes.c_size_t) == 8 else "I")
        )

    def exchange(self, known: Mapping[bytes, bytes], unusual: Callable[[bytes, Address], None]) -> tuple[int, int]:
        """Take what waits, at most AT_ONCE, and answer what `known` has; the rest goes to `unusual`, in its order.

        `known` has replies by query, both without the two bytes of the id. Returns how many were taken and how many of
        them answered; never raises for what a network does.
        """
        count: int = _libc.recvmmsg(self._fd, ctypes.addressof(self._into), AT_ONCE, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return 0, 0
        view, lengths, out_lengths = self._view, self._lengths, self._out_lengths
        step = ctypes.sizeof(_Message) // 4
        where = _Message.length.offset // 4
        begin = answered = at = 0
        for index in range(count):
            reply = known.get(bytes(view[at + 2 : at + lengths[where]]))
            if reply is None:
                self._send(begin, index)
                begin = index + 1
                unusual(bytes(view[at : at + lengths[where]]), self._address(index))
            else:
                view[at + 2 : at + 2 + len(reply)] = reply
                out_lengths[2 * index + 1] = 2 + len(reply)
                answered += 1
            at += LONGEST
            where += step
        self._send(begin, count)
        return count, answered

    def _send(self, begin: int, end: int) -> None:
        """Send the messages from `begin` up to `end`. One that can't be sent is lost: its client asks again."""
        base, size = ctypes.addressof(self._out), ctypes.sizeof(_Message)
        while begin < end:
            sent = _libc.sendmmsg(self._fd, base + begin * size, end - begin, socket.MSG_DONTWAIT)
            if sent <= 0:
                code = ctypes.get_errno()
                log.debug("dns: reply to %s: %s", self._address(begin)[0], errno.errorcode.get(code, os.strerror(code)))
            begin += max(sent, 1)

    def _address(self, index: int) -> Address:
        raw = self._addresses[index * ADDRESS : (index + 1) * ADDRESS]
        return socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big")


def _messages(base: int, names: int) -> tuple[ctypes.Array[_Message], ctypes.Array[_Vector]]:
    """AT_ONCE headers, each with the buffer at `base` and the address at `names` that are its own."""
    messages, vectors = (_Message * AT_ONCE)(), (_Vector * AT_ONCE)()
    for index in range(AT_ONCE):
        vectors[index].base = base + index * LONGEST
        vectors[index].length = LONGEST
        header = messages[index].header
        header.name, header.name_length = names + index * ADDRESS, ADDRESS
        header.vectors, header.count = ctypes.addressof(vectors) + index * ctypes.sizeof(_Vector), 1
    return messages, vectors
