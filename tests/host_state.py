"""What a build must leave as it is on the machine that it runs on."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("/etc", "/usr/local", "/usr/sbin", "/root", "/home", "/boot", "/opt", "/srv", "/var/lib/dpkg", "/var/spool")
SHALLOW = ("/root", "/home")
"""People's own, of any size: only what lies in these folders themselves."""
HASHED = "/etc"
"""Elsewhere the time of the last change tells (st_ctime, which nobody can set)."""
KERNEL = ("/proc/self/mountinfo", "/proc/sys/fs/binfmt_misc", "/proc/sys/kernel/hostname", "/proc/modules")
LISTED = ("/sys/block", "/sys/class/net")


def snapshot() -> dict[str, str]:
    """Path → owner, mode, times and content; mounts, binary formats, modules, disks and interfaces beside them."""
    found = {str(path): describe(path) for top in FOLDERS for path in walk(Path(top))}
    for name in KERNEL:
        for path in walk(Path(name)):
            if os.access(path, os.R_OK) and path.is_file() and path.name != "register":
                found[str(path)] = contents(path)
    return found | {name: " ".join(sorted(os.listdir(name))) for name in LISTED}  # noqa: PTH208


def walk(top: Path) -> Iterator[Path]:
    """`top` and all below it."""
    yield top
    for parent, folders, files in os.walk(top):
        yield from (Path(parent) / name for name in (*folders, *files))
        if parent in SHALLOW:
            folders.clear()


def describe(path: Path) -> str:
    status = path.lstat()
    line = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} {status.st_mtime_ns} {status.st_ctime_ns}"
    if stat.S_ISLNK(status.st_mode):
        return f"{line} {path.readlink()}"
    if stat.S_ISREG(status.st_mode) and str(path).startswith(HASHED):
        return f"{line} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return line


def contents(path: Path) -> str:
    """A kernel's file, without counters of use and the network namespaces that come and go beside a test."""
    text = path.read_text(errors="replace")
    if path.name == "mountinfo":
        return "\n".join(line for line in text.splitlines() if " nsfs " not in line)
    return "\n".join(line.split()[0] for line in text.splitlines()) if path.name == "modules" else text


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What differs, a line each."""
    names = sorted({*before, *after})
    return [
        f"{name}: {before.get(name, 'new')} -> {after.get(name, 'gone')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
