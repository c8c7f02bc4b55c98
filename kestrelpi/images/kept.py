"""Compressed files, kept by the hash of what they hold: packing takes longer than all else in a small rebuild."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from kestrelpi.images.layers import DRAFT

SPARE = 8
"""So many files that no generation has are kept: the last ones made, of which the next build may need some."""


def kept(data: bytes, suffix: str, cache: Path, pack: Callable[[bytes, Path], None]) -> Path:
    """The packed form of `data` in the folder `cache`; whoever wants it makes a hard link or reads it."""
    packed = cache / f"{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
    if not packed.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # a name of its own: the packer of a killed build may still be writing to another
        part = cache / f"{DRAFT}{os.getpid()}-{packed.name}"
        pack(data, part)
        part.rename(packed)
    return packed


def unused(cache: Path) -> list[Path]:
    """What no generation has a hard link of, but for the last few, and what killed builds left.

    The caller holds the build lock.
    """
    files = [path for path in cache.glob("*") if path.is_file() and path.stat().st_nlink == 1]
    half = [path for path in files if path.name.startswith(DRAFT)]
    whole = sorted((path for path in files if path not in half), key=lambda path: path.stat().st_mtime_ns)
    return half + whole[:-SPARE]
