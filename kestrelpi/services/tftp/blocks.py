"""DATA packets, prepared once for each content and block size and shared by all transfers of it.

Preparing costs about 1 µs a packet, once; after that a transfer sends bytes that already exist, from where they lie.
Memory is bounded by a budget: what doesn't fit is cut when it is sent, slower but without holding it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kestrelpi.services.mmsg import address_of, bytes_at
from kestrelpi.services.tftp.packets import DATA_HEADER, DEFAULT_BLOCK, data
from kestrelpi.services.tftp.source import BootFile

DEFAULT_BUDGET = 512 << 20
"""Bytes: the file sets of a Pi 3, 4 and 5 in two block sizes are under 150 MB."""


class Blocks(Protocol):
    """All DATA packets of one file, thought of as side by side: each is found by its offset in bytes."""

    @property
    def size(self) -> int:
        """Bytes of each but the last, and so the offset from one to the next."""

    @property
    def last(self) -> int:
        """Bytes of the last, which is shorter, if need be empty (RFC 1350 section 6)."""

    @property
    def final(self) -> int:
        """The offset of the last."""

    @property
    def base(self) -> int | None:
        """Where the first lies in memory, if they do lie there side by side."""

    def address(self, offset: int, /) -> int:
        """Where a packet lies in memory, good until the next call."""


def packet(blocks: Blocks, index: int) -> bytes:
    """A copy of one packet; index 0 is block 1."""
    offset = index * blocks.size
    return bytes_at(blocks.address(offset), blocks.size if offset < blocks.final else blocks.last)


@dataclass(eq=False)
class Prepared:
    """A file's packets and its true size (it may have changed since it was found)."""

    blocks: Blocks
    size: int
    users: int = 0
    """Transfers that send it now: while there are any it stays, because dropping it would free nothing."""


class Cut:
    """All packets of a content, in memory."""

    def __init__(self, content: bytes, block: int) -> None:
        count = len(content) // block + 1
        self.size = block + DATA_HEADER
        self.final = (count - 1) * self.size
        self._packets = bytearray(cost(len(content), block))
        self.last = len(self._packets) - self.final
        self.base = address_of(self._packets)
        view = memoryview(content)
        for index in range(count):
            start = index * self.size
            self._packets[start : start + self.size] = data(index + 1, view[index * block : (index + 1) * block])

    def address(self, offset: int) -> int:
        return self.base + offset


class OneByOne:
    """Packets that are made when they are sent, each in the place of the one before: `Blocks` for one transfer."""

    base = None

    def __init__(self, read: Callable[[int, int], bytes], size: int, block: int) -> None:
        """`read` takes where to begin in the file, and how many bytes."""
        self._read = read
        self._block = block
        self.size = block + DATA_HEADER
        self.last = size % block + DATA_HEADER
        self.final = size // block * self.size
        self._packet = bytearray(self.size)
        self._address = address_of(self._packet)

    def address(self, offset: int) -> int:
        index = offset // self.size
        made = data(index + 1, self._read(index * self._block, self._block))
        self._packet[: len(made)] = made
        return self._address


class OpenFile:
    """A file that is read here and there, and closed when nobody has it any more: the one transfer that it is for."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._fd, length, start)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


def one_by_one(file: BootFile, block: int) -> Prepared:
    """The packets of a file that isn't held in memory; raises OSError when it can't be read."""
    if isinstance(file.open, bytes):
        content = file.open
        size = len(content)
        return Prepared(OneByOne(lambda start, length: content[start : start + length], size, block), size)
    opened = OpenFile(file.open)
    return Prepared(OneByOne(opened.read, opened.size, block), opened.size)


def cost(size: int, block: int) -> int:
    """Bytes of memory that a file of `size` bytes takes when it is prepared."""
    return size + (size // block + 1) * DATA_HEADER


@dataclass
class BlockCache:
    """Prepared packets by (content, block size); when the budget is short, the least recently used leaves first."""

    budget: int = DEFAULT_BUDGET
    held: int = 0
    """Bytes of memory in prepared packets; never above the budget."""
    _kept: OrderedDict[tuple[str, int], Prepared] = field(default_factory=OrderedDict)

    def acquire(self, file: BootFile, block: int) -> Prepared:
        """The packets of `file` in blocks of `block` bytes, until `release`; raises OSError when it can't be read."""
        key = (file.key, block)
        prepared = self._kept.get(key)
        if prepared:
            self._kept.move_to_end(key)
        else:
            prepared = self._prepare(file, block)
        prepared.users += 1
        return prepared

    def release(self, prepared: Prepared) -> None:
        """A transfer is over."""
        prepared.users -= 1

    def _prepare(self, file: BootFile, block: int) -> Prepared:
        # Tiny blocks would cost many times the file's size, and no Pi asks for them.
        if block < DEFAULT_BLOCK or not self._make_room(cost(file.size, block)):
            return one_by_one(file, block)
        content = file.open if isinstance(file.open, bytes) else file.open.read_bytes()
        prepared = Prepared(Cut(content, block), len(content))
        if self._make_room(cost(prepared.size, block)):
            self._kept[file.key, block] = prepared
            self.held += cost(prepared.size, block)
        return prepared

    def _make_room(self, price: int) -> bool:
        """Drop what nobody uses until `price` bytes fit; False when they can't."""
        if price > self.budget:
            return False
        if self.held + price > self.budget:
            for key in [key for key, prepared in self._kept.items() if not prepared.users]:
                self.held -= cost(self._kept.pop(key).size, key[1])
                if self.held + price <= self.budget:
                    break
        return self.held + price <= self.budget
