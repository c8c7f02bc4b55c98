"""What one tree has that another doesn't, as a layer that lies over it.

Source: Linux' Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kestrelpi.images.flatten import OVERLAY, copy_folder


def difference(lower: Path, upper: Path, out: Path) -> int:
    """Make the folder `out`: laid over `lower`, it is `upper`; returns the bytes of the files in it.

    Files are hard links of `upper`'s, what is only in `lower` is a whiteout. Neither tree has whiteouts of its own; all
    are on one file system.
    """
    out.mkdir()
    size = _differ(os.fspath(lower), os.fspath(upper), os.fspath(out))
    copy_folder(os.fspath(upper), os.fspath(out))
    return size


def _differ(lower: str | None, upper: str, out: str) -> int:
    """Fill the folder `out`; all are the same folder of their trees, of which the lower one may lack it."""
    there = {entry.name: entry for entry in os.scandir(lower)} if lower else {}
    size = 0
    for entry in os.scandir(upper):
        before, path = there.pop(entry.name, None), f"{out}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            size += _folder(before, entry, path)
        elif before is None or not same(before, entry):
            os.link(entry.path, path, follow_symlinks=False)
            size += entry.stat(follow_symlinks=False).st_size
    for name in there:
        os.mknod(f"{out}/{name}", stat.S_IFCHR, 0)
    return size


def _folder(before: os.DirEntry[str] | None, entry: os.DirEntry[str], path: str) -> int:
    """A folder of `upper`; there is none in the difference if nothing of it, or in it, differs."""
    os.mkdir(path)  # noqa: PTH102
    below = before if before and before.is_dir(follow_symlinks=False) else None
    size = _differ(below.path if below else None, entry.path, path)
    if below and same(below, entry) and not os.listdir(path):  # noqa: PTH208
        os.rmdir(path)  # noqa: PTH106
    else:
        copy_folder(entry.path, path)
    return size


def same(one: os.DirEntry[str], two: os.DirEntry[str]) -> bool:
    """Whether two entries are the same file, or can't be told apart; of folders, not what is in them."""
    first, second = one.stat(follow_symlinks=False), two.stat(follow_symlinks=False)
    if first.st_ino == second.st_ino:
        return True
    folder = stat.S_ISDIR(first.st_mode)
    about = [
        (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            0 if folder else status.st_size,
        )
        for status in (first, second)
    ]
    return about[0] == about[1] and _attributes(one.path) == _attributes(two.path) and _content(one) == _content(two)


def _attributes(path: str) -> dict[str, bytes]:
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(OVERLAY)]
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _content(entry: os.DirEntry[str]) -> bytes | str:
    if entry.is_symlink():
        return os.readlink(entry.path)  # noqa: PTH115
    return Path(entry.path).read_bytes() if entry.is_file(follow_symlinks=False) else b""
