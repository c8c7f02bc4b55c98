"""Content keys: a step's result is reused when everything that went into it is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

LENGTH = 16
"""Hex digits of a key: 64 bits, and short enough for the mount options of a tall stack of layers."""
PREVIOUS = "previous step"


def digest(fields: Mapping[str, str]) -> str:
    """The key of a step: a hash over its fields, in the order of their names."""
    text = json.dumps(dict(sorted(fields.items())), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hash_path(path: Path) -> str:
    """The bytes and modes of a file, or of all files below a folder with their names; `absent` when there is none."""
    if path.is_file():
        return hash_bytes(path.read_bytes() + f"\0{path.stat().st_mode & 0o7777:o}".encode())
    if not path.is_dir():
        return "absent"
    lines = [f"{one.relative_to(path)} {hash_path(one)}" for one in sorted(path.rglob("*")) if one.is_file()]
    return hash_bytes("\n".join(lines).encode())


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Which fields differ, for people; the step's own fields first, `previous step` only when nothing else does."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    own = sorted(name for name in names if name != PREVIOUS)
    return ", ".join(own) if own else PREVIOUS if names else ""
