"""The archive format of an initramfs, cpio "newc".

Source: Linux' Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TRAILER = "TRAILER!!!"
MAGIC = b"070701"
HEADER = 110
"""Bytes of a member's header: the magic and thirteen fields of eight hex digits."""


@dataclass(frozen=True)
class Entry:
    """A member of the archive; owned by root and without times, so that equal input gives equal bytes."""

    mode: int
    """Type and permissions as in st_mode."""
    data: bytes = b""
    """Content of a file, target of a link."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""


def folder(mode: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | mode)


def file(data: bytes, mode: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | mode, data)


def link(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def pack(entries: Mapping[str, Entry]) -> bytes:
    """The archive; paths without a leading slash. Folders that only appear in paths are added (0755)."""
    whole: dict[str, Entry] = dict(entries)
    for path in entries:
        for parent in _parents(path):
            whole.setdefault(parent, folder())
    parts = [_member(number, path, entry) for number, (path, entry) in enumerate(sorted(whole.items()), 1)]
    parts.append(_member(0, TRAILER, Entry(0)))
    return b"".join(parts)


def unpack(archive: bytes) -> dict[str, Entry]:
    """The members of an archive by their paths; raises ValueError when it is none, or cut off."""
    return {name: entry for _, name, entry in members(archive) if name != TRAILER}


def members(archive: bytes) -> Iterator[tuple[int, str, Entry]]:
    """Each member with the byte where it begins, the trailer too; what lies behind that one is not looked at."""
    at, name = 0, ""
    while name != TRAILER:
        header = archive[at : at + HEADER]
        if header[:6] != MAGIC or len(header) < HEADER:
            raise ValueError(f"no member of a cpio archive at byte {at}")
        fields = [int(header[6 + 8 * number : 14 + 8 * number], 16) for number in range(13)]
        mode, size, major, minor, name_size = fields[1], fields[6], fields[9], fields[10], fields[11]
        name = archive[at + HEADER : at + HEADER + name_size - 1].decode()
        start = at + _up_to_four(HEADER + name_size)
        yield at, name, Entry(mode, archive[start : start + size], (major, minor))
        at = start + _up_to_four(size)


def _up_to_four(size: int) -> int:
    return size + -size % 4


def _parents(path: str) -> list[str]:
    words = path.split("/")[:-1]
    return ["/".join(words[: count + 1]) for count in range(len(words))]


def _member(number: int, path: str, entry: Entry) -> bytes:
    """Thirteen fields of eight hex digits after the magic, the name with its NUL, the data; each padded to 4 bytes."""
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % one for one in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
