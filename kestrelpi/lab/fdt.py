"""Properties of the root of a flattened device tree (Devicetree Specification 0.4, chapter 5).

A Pi's firmware writes its serial and model there before it starts Linux; the emulator doesn't know them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from kestrelpi.errors import UserError

MAGIC = 0xD00DFEED
HEADER = struct.Struct(">10I")
BEGIN_NODE, PROPERTY, NOP = 1, 3, 4


def with_root_properties(tree: bytes, properties: Mapping[str, str]) -> bytes:
    """`tree` with these string properties of its root set or replaced. Raises UserError when it is no device tree."""
    if len(tree) < HEADER.size or int.from_bytes(tree[:4], "big") != MAGIC:
        raise UserError("this is not a device tree: it doesn't begin with d00dfeed")
    _, _, at, strings_at, reserved_at, version, compatible, cpu, strings_size, size = HEADER.unpack_from(tree)
    structure = tree[at : at + size]
    strings = tree[strings_at : strings_at + strings_size]
    reserved = tree[reserved_at : _end_of_reserved(tree, reserved_at)]
    # The root's name is empty: token, four bytes of name, then its properties.
    kept, rest = structure[:8], structure[8:]
    for name, start, end in _properties(rest, strings):
        if name not in properties:
            kept += rest[start:end]
        last = end
    added = b""
    for name, value in properties.items():
        data = value.encode() + b"\0"
        added += struct.pack(">3I", PROPERTY, len(data), len(strings)) + data + bytes(-len(data) % 4)
        strings += name.encode() + b"\0"
    structure = kept + added + rest[last:]
    start = HEADER.size + len(reserved)
    header = HEADER.pack(
        MAGIC, start + len(structure) + len(strings), start, start + len(structure), HEADER.size, version, compatible,
        cpu, len(strings), len(structure),
    )  # fmt: skip
    return header + reserved + structure + strings


def root_properties(tree: bytes) -> dict[str, bytes]:
    """The root's own properties."""
    _, _, at, strings_at, _, _, _, _, strings_size, size = HEADER.unpack_from(tree)
    rest = tree[at + 8 : at + size]
    strings = tree[strings_at : strings_at + strings_size]
    found = {}
    for name, start, _ in _properties(rest, strings):
        if name:
            length = int.from_bytes(rest[start + 4 : start + 8], "big")
            found[name] = rest[start + 12 : start + 12 + length]
    return found


def _end_of_reserved(tree: bytes, at: int) -> int:
    while tree[at : at + 16] != bytes(16):
        at += 16
    return at + 16


def _properties(rest: bytes, strings: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each property in front of the first child node; an empty name for padding."""
    at = 0
    yield "", 0, 0
    while (token := int.from_bytes(rest[at : at + 4], "big")) in (PROPERTY, NOP):
        if token == NOP:
            yield "", at, at + 4
            at += 4
            continue
        length, name_at = struct.unpack_from(">2I", rest, at + 4)
        end = at + 12 + length + (-length % 4)
        yield strings[name_at : strings.index(b"\0", name_at)].decode(), at, end
        at = end
