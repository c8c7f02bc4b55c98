"""The tree hash: one number for all that a root is, the same on every machine that built the same.

It covers, for each path: kind, mode, owner, modification time, extended attributes, and the bytes of a file, the target
of a link or the numbers of a device. It doesn't cover inode numbers, access times, or which names are hard links.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from kestrelpi.images.flatten import OVERLAY

DIGESTS = "digests.json"


def tree_hash(root: Path, known: Mapping[str, str] | None = None) -> str:
    """The tree hash of `root`. `known`: SHA-256 of files that are hard links to a layer's, by path; others are read."""
    whole = hashlib.sha256()
    for path, status in walk(root):
        whole.update(describe(root, path, status, known or {}).encode("utf-8", "surrogateescape") + b"\0")
    return whole.hexdigest()


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below `root` (itself as `.`) in the order of the names' bytes."""
    yield ".", root.lstat()
    yield from _below(os.fspath(root), "")


def _below(root: str, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(f"{root}/{folder}") as entries:
        found = sorted(entries, key=lambda one: os.fsencode(one.name))
    for entry in found:
        path = f"{folder}{entry.name}"
        yield path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(root, f"{path}/")


def describe(root: Path, path: str, status: os.stat_result, known: Mapping[str, str]) -> str:
    """All that counts of one path, in a line."""
    place = f"{root}/{path}"
    mode = status.st_mode
    if stat.S_ISREG(mode):
        in_layer = status.st_nlink > 1  # else it was written into the root itself
        content = (known.get(path) if in_layer else None) or file_digest(place)
    elif stat.S_ISLNK(mode):
        content = os.readlink(place)  # noqa: PTH115 (called thousands of times)
    else:
        content = str(status.st_rdev) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else ""
    attributes = sorted(name for name in os.listxattr(place, follow_symlinks=False) if not name.startswith(OVERLAY))
    values = " ".join(f"{name}={os.getxattr(place, name, follow_symlinks=False).hex()}" for name in attributes)
    owner = f"{status.st_uid}:{status.st_gid}"
    return "\t".join((path, f"{mode:o}", owner, str(status.st_mtime_ns), values, content))


def file_digest(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 (called thousands of times)
        return hashlib.file_digest(file, "sha256").hexdigest()


def clamp(tree: Path, epoch: int) -> None:
    """Give everything in `tree` that was made after `epoch` (seconds since 1970) that time."""
    moment = epoch * 10**9
    for path, status in walk(tree):
        if status.st_mtime_ns > moment:
            os.utime(f"{tree}/{path}", ns=(moment, moment), follow_symlinks=False)


def write_digests(tree: Path, folder: Path) -> None:
    """Keep the SHA-256 of each file in `tree` in `folder`, so that no build has to read it again."""
    files = {path: file_digest(f"{tree}/{path}") for path, status in walk(tree) if stat.S_ISREG(status.st_mode)}
    (folder / DIGESTS).write_text(json.dumps(files), encoding="utf-8")


def read_digests(folder: Path) -> dict[str, str]:
    """What `write_digests` kept; empty when it didn't."""
    path = folder / DIGESTS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
