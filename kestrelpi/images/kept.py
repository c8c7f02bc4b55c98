"""Compressed files, kept by the hash of what they hold: packing takes longer than all else in a small rebuild."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kestrelpi.images.layers import DRAFT


def kept(data: bytes, suffix: str, cache: Path, pack: Callable[[bytes, Path], None], out: Path) -> None:
    """Write the packed form of `data` to `out`, from the folder `cache` when it was packed before."""
    packed = cache / f"{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
    if not packed.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # a name of its own: the packer of a killed build may still be writing to another
        part = cache / f"{DRAFT}{os.getpid()}-{packed.name}"
        pack(data, part)
        part.rename(packed)
    shutil.copyfile(packed, out)
