"""What differs between two generations: packages, files by their inodes and bytes, and what went into the steps."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.images import added
from kestrelpi.images.keys import PREVIOUS
from kestrelpi.images.layers import Layers
from kestrelpi.images.store import Generation

HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Change:
    """One thing that differs; empty `old`: new, empty `new`: gone."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Difference:
    """What is not the same in two generations."""

    packages: tuple[Change, ...]
    files: tuple[Change, ...]
    boot: tuple[Change, ...]
    configuration: tuple[Change, ...]
    """Scripts, package lists, overlay files, variables and settings that made the one and not the other."""


def compare(old: Generation, new: Generation, layers: Layers) -> Difference:
    """Compare two generations; a hard link in both is equal without being read. `layers`: those they are made of."""
    packages = changes_between(dict(old.manifest.packages), dict(new.manifest.packages))
    boot = changes_between(
        {name: info.sha256[:12] for name, info in old.manifest.boot.items()},
        {name: info.sha256[:12] for name, info in new.manifest.boot.items()},
    )
    configuration = changes_between(_made_of(old, layers), _made_of(new, layers))
    return Difference(packages, tuple(_files(old.root, new.root)), boot, configuration)


def _made_of(generation: Generation, layers: Layers) -> dict[str, str]:
    """`phase script: field` → value, of every step whose layer is there; hashes are cut short."""
    found = {}
    for key in generation.manifest.keys:
        info = layers.info(key)
        for name, value in (info.fields if info else {}).items():
            if info and name not in ("phase", "name", PREVIOUS):
                step = added.step_name(1) if info.phase == added.PHASE else info.name  # added or not: the same packages
                found[f"{info.phase} {step}: {name}"] = value[:12] if HASH.fullmatch(value) else value
    return found


def changes_between(old: dict[str, str], new: dict[str, str]) -> tuple[Change, ...]:
    """Which names have another value, or only one of the two has."""
    names = sorted({*old, *new})
    return tuple(Change(n, old.get(n, ""), new.get(n, "")) for n in names if old.get(n) != new.get(n))


def _files(old: Path, new: Path) -> list[Change]:
    before, after = _listing(old), _listing(new)
    names = sorted({*before, *after})
    return [
        Change(name, _describe(before.get(name)), _describe(after.get(name)))
        for name in names
        if _differ(old / name, before.get(name), new / name, after.get(name))
    ]


def _listing(root: Path) -> dict[str, os.stat_result]:
    """Everything but folders below `root`."""
    found = {}
    for parent, folders, files in os.walk(root):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in files + links:
            path = Path(parent) / name
            found[str(path.relative_to(root))] = path.lstat()
    return found


def _differ(old: Path, one: os.stat_result | None, new: Path, two: os.stat_result | None) -> bool:
    if one is None or two is None:
        return True
    if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino):
        return False
    if (one.st_mode, one.st_uid, one.st_gid) != (two.st_mode, two.st_uid, two.st_gid):
        return True
    if stat.S_ISLNK(one.st_mode):
        return old.readlink() != new.readlink()
    if stat.S_ISREG(one.st_mode):
        return one.st_size != two.st_size or old.read_bytes() != new.read_bytes()
    return one.st_rdev != two.st_rdev


def _describe(status: os.stat_result | None) -> str:
    if status is None:
        return ""
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} {status.st_size}"
