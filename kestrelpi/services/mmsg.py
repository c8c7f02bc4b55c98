"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), which Python's socket doesn't have.

What the calls take is laid out once, as views of memory that are read and written by index: an item costs some 40 ns,
where an attribute of a ctypes structure costs five times that.
"""

from __future__ import annotations

import ctypes
import socket
from array import array
from collections.abc import Callable
from functools import partial

ADDRESS = 16
"""Bytes of a sockaddr_in (ip(7)): family, port, address, padding."""


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


_SIZE = ctypes.sizeof(_Message)
# Without argtypes, which cost half of a call: pointers are passed as c_void_p.
_recvmmsg, _sendmmsg = ctypes.CDLL(None).recvmmsg, ctypes.CDLL(None).sendmmsg


def address_of(buffer: bytearray) -> int:
    """Where the bytes of `buffer` lie, as long as it exists and doesn't change its size; there must be one at least."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def sender(name: bytes | bytearray) -> tuple[str, int]:
    """The address and port in a sockaddr_in."""
    return socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big")


def bytes_at(address: int, length: int) -> bytes:
    """A copy of the bytes that lie there."""
    return ctypes.string_at(address, length)


class Messages:
    """`count` datagrams of up to `room` bytes on a socket: number n has its bytes at `room` * n in `buffer`, its peer's
    address at ADDRESS * n in `peers`. Whoever makes it keeps both, and the socket."""

    def __init__(self, fd: int, count: int, buffer: bytearray, room: int, peers: bytearray) -> None:
        self._fd = fd
        self._messages, self._vectors = (_Message * count)(), (_Vector * count)()
        base, names, vectors = address_of(buffer), address_of(peers), ctypes.addressof(self._vectors)
        for index in range(count):
            self._vectors[index].base, self._vectors[index].length = base + index * room, room
            header = self._messages[index].header
            header.name, header.name_length = names + index * ADDRESS, ADDRESS
            header.vectors, header.count = vectors + index * ctypes.sizeof(_Vector), 1
        self._words = memoryview(self._vectors).cast("B").cast("L")  # of a pointer's size on every Linux
        self.sizes = self._words[1::2]
        """How many bytes of each datagram `send` takes."""
        self.received = memoryview(self._messages).cast("B").cast("I")[_Message.length.offset // 4 :: _SIZE // 4]
        """Bytes of each datagram that `receive` took."""
        self._first = self._pointer(0)
        self.receive: Callable[[], int] = partial(_recvmmsg, fd, self._first, count, socket.MSG_DONTWAIT, None)
        """Take what waits; how many, less than one when it is nothing, or an error. Doesn't block."""

    def lay(self, vectors: list[int]) -> None:
        """Where the first datagrams lie that `send` takes, and their bytes: address, size, address, size and so on."""
        self._words[: len(vectors)] = array("L", vectors)

    def send(self, begin: int, end: int) -> int:
        """Send from number `begin` up to `end`, without blocking; how many could not be sent.

        Each is tried twice: an error may have waited at the socket, of another datagram, and is told only once.
        """
        at, lost, told = begin, 0, False
        while at < end:
            where = self._pointer(at) if at else self._first
            sent: int = _sendmmsg(self._fd, where, end - at, socket.MSG_DONTWAIT)
            if sent > 0:
                at, told = at + sent, False
            elif told:
                at, lost, told = at + 1, lost + 1, False
            else:
                told = True
        return lost

    def _pointer(self, index: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self._messages) + index * _SIZE)
