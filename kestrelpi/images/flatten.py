"""One tree out of a stack of sealed layers, by hard links: the meaning of an overlay without the overlay driver.

Source: Linux' Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

OPAQUE = "trusted.overlay.opaque"
OVERLAY = "trusted.overlay."


def flatten(layers: Sequence[Path], target: Path, *, over_others: bool = False) -> int:
    """Make `target` (which must not exist) the union of `layers`, the topmost first; returns the number of files.

    Files are hard links (metadata, device numbers and security.capability come with the inode), folders are new.
    All must be on one file system. `over_others`: the union is itself a layer that lies over others, so what it takes
    away from them (whiteouts, opaque folders) is kept.
    """
    return _merge([os.fspath(layer) for layer in layers], os.fspath(target), over_others)


def _merge(folders: list[str], target: str, over_others: bool) -> int:
    """Merge folders that share one path, the topmost first."""
    entries: dict[str, list[os.DirEntry[str]]] = {}
    finished: set[str] = set()
    """Names to which lower layers add nothing: a file, a whiteout or an opaque folder was found."""
    for folder in folders:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name in finished:
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder or entry.name not in entries:
                    entries.setdefault(entry.name, []).append(entry)
                if not is_folder or is_opaque(entry.path):
                    finished.add(entry.name)
    os.mkdir(target)  # noqa: PTH102
    count = 0
    for name, same in entries.items():
        path = f"{target}/{name}"
        if same[0].is_dir(follow_symlinks=False):
            count += _merge([one.path for one in same], path, over_others)
            if over_others and name in finished:
                os.setxattr(path, OPAQUE, b"y")
        elif over_others or not is_whiteout(same[0]):
            os.link(same[0].path, path, follow_symlinks=False)
            count += 1
    copy_folder(folders[0], target)
    return count


def copy_folder(source: str, target: str) -> None:
    """Owner, mode, times and extended attributes of a folder, but not what it means to an overlay."""
    status = os.stat(source)  # noqa: PTH116
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101
    for name in os.listxattr(source):
        if not name.startswith(OVERLAY):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def forget_origin(tree: Path) -> None:
    """Remove what the overlay driver noted for itself: inode numbers of this machine, which mean nothing elsewhere."""
    for parent, folders, files in os.walk(tree):
        for name in (*folders, *files):
            path = f"{parent}/{name}"
            for attribute in os.listxattr(path, follow_symlinks=False):
                if attribute.startswith(OVERLAY) and attribute != OPAQUE:
                    os.removexattr(path, attribute, follow_symlinks=False)


def is_whiteout(entry: os.DirEntry[str]) -> bool:
    """A character device 0:0 stands for "deleted here"."""
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(folder: str) -> bool:
    """Whether nothing below this folder shows through."""
    try:
        return os.getxattr(folder, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
