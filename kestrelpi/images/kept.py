"""Compressed files, kept by the hash of what they hold: packing takes longer than all else in a small rebuild."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path


def kept(data: bytes, suffix: str, cache: Path, pack: Callable[[bytes, Path], None], out: Path) -> None:
    """Write the packed form of `data` to `out`, from the folder `cache` when it was packed before."""
    packed = cache / f"{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
    if not packed.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / f".new-{packed.name}"
        pack(data, part)
        part.rename(packed)
    shutil.copyfile(packed, out)
