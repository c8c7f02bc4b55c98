"""DATA packets, prepared once for each content and block size and shared by all transfers of it.

Preparing costs about 1 µs a packet, once; after that a transfer sends bytes that already exist. Memory is bounded by a
budget: what doesn't fit is cut when it is sent, slower but without holding it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kestrelpi.services.tftp.packets import DEFAULT_BLOCK, data
from kestrelpi.services.tftp.source import BootFile

DEFAULT_BUDGET = 512 << 20
"""Bytes: the file sets of a Pi 3, 4 and 5 in two block sizes are under 150 MB."""
PACKET_OVERHEAD = 33 + 4 + 8 + 8
"""Bytes that a prepared packet costs besides its payload: bytes object, header, list slot, allocator's rounding."""


class Blocks(Protocol):
    """All DATA packets of one file: `blocks[0]` is block 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


@dataclass(eq=False)
class Prepared:
    """A file's packets and its true size (it may have changed since it was found)."""

    blocks: Blocks
    size: int
    users: int = 0
    """Transfers that send it now: while there are any it stays, because dropping it would free nothing."""


class FromFile:
    """Packets read from the open file when they are sent."""

    def __init__(self, path: Path, block: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._block = block
        self.size = os.fstat(self._fd).st_size

    def __len__(self) -> int:
        return self.size // self._block + 1

    def __getitem__(self, index: int) -> bytes:
        return data(index + 1, os.pread(self._fd, self._block, index * self._block))

    def __del__(self) -> None:
        # The one transfer that has it holds it.
        if hasattr(self, "_fd"):
            os.close(self._fd)


class FromBytes:
    """Packets cut from bytes when they are sent."""

    def __init__(self, content: bytes, block: int) -> None:
        self._content = content
        self._block = block

    def __len__(self) -> int:
        return len(self._content) // self._block + 1

    def __getitem__(self, index: int) -> bytes:
        return data(index + 1, self._content[index * self._block : (index + 1) * self._block])


def cut(content: bytes, block: int) -> list[bytes]:
    """The DATA packets of `content`; the last is shorter than `block`, if need be empty (RFC 1350 section 6)."""
    packets = FromBytes(content, block)
    return [packets[index] for index in range(len(packets))]


def cost(size: int, block: int) -> int:
    """Bytes of memory that a file of `size` bytes takes when it is prepared."""
    return size + (size // block + 1) * PACKET_OVERHEAD


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
            if isinstance(file.open, bytes):
                return Prepared(FromBytes(file.open, block), len(file.open))
            opened = FromFile(file.open, block)
            return Prepared(opened, opened.size)
        content = file.open if isinstance(file.open, bytes) else file.open.read_bytes()
        prepared = Prepared(cut(content, block), len(content))
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
