"""Stanzas of Debian's control format (deb822(5)), as package indexes, dpkg's status file and lock files have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

Stanza = Mapping[str, str]
"""Field → value; lines that go on keep their line break and indentation."""


def parse(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of `text`; lines that begin with `#` are passed over."""
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and name:
                fields[name] += f"\n{line}"
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def text_of(stanzas: Iterable[Stanza]) -> str:
    """The stanzas as text, an empty line between them."""
    return "\n".join("".join(f"{name}: {value}\n" for name, value in one.items()) for one in stanzas)


def find(index: bytes, wanted: Collection[str]) -> Iterator[dict[str, str]]:
    """The stanzas of the packages called `wanted` in a package index; the rest of its 50 MB is not parsed."""
    for start, name in starts(index):
        if name in wanted:
            end = index.find(b"\n\n", start)
            yield from parse(index[start : end if end >= 0 else None].decode())


def names(index: bytes) -> set[str]:
    """The names of all packages in a package index."""
    return {name for _, name in starts(index)}


def starts(index: bytes) -> Iterator[tuple[int, str]]:
    """Where each stanza of a package index begins, and its package's name: the field Package comes first there."""
    mark, position = b"Package: ", 0
    if not index.startswith(mark):
        position = index.find(b"\n\n" + mark) + 2
        if position < 2:
            return
    while True:
        end = index.find(b"\n", position)
        yield position, index[position + len(mark) : end if end >= 0 else None].decode()
        position = index.find(b"\n\n" + mark, position) + 2
        if position < 2:
            return
