"""What was changed by hand in a shell, as a script that does it again in every build.

It is read off the shell's upper layer (Linux' Documentation/filesystems/overlayfs.rst), so it doesn't matter with which
programs it was done.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kestrelpi.images.flatten import is_opaque

NOISE = (
    *("tmp", "run", "proc", "sys", "dev", "var/tmp", "var/log", "var/cache", "var/lib/apt/lists", "var/lib/systemd"),
    *("root/.bash_history", "root/.lesshst", "root/.viminfo", "root/.cache", "root/.local/share/nano"),
    *("etc/ld.so.cache", "etc/.pwd.lock"),
    *(f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")),
)
"""What a shell leaves behind without being asked."""
PACKAGES = "var/lib/dpkg/"
"""A change below it: packages were installed, whose place is a package list."""
MOST = 64 * 1024
"""Bytes of a file that is written out in a script; what is longer, or no text, belongs into the overlay."""
END = "END-OF-FILE"

Kind = Literal["gone", "folder", "link", "text", "bytes", "mode"]


@dataclass(frozen=True)
class ByHand:
    """One thing that was changed."""

    kind: Kind
    name: str
    """Path below the root."""
    mode: int = 0
    owner: str = "0:0"
    text: str = ""
    """Content of a file, target of a link."""


def changes(upper: Path, lower: Path) -> list[ByHand]:
    """What differs in the layer `upper` from the root `lower` below it, parents before what is in them."""
    return [*_changes(upper, lower, "")]


def _changes(upper: Path, lower: Path, base: str) -> Iterator[ByHand]:
    for path in sorted((upper / base).iterdir()):
        name = f"{base}{path.name}"
        if name in NOISE:
            continue
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield ByHand("gone", name)
        elif stat.S_ISDIR(status.st_mode):
            yield from _folder(path, lower / name, name, status)
            yield from _changes(upper, lower, f"{name}/")
        else:
            one = _file(path, lower / name, name, status)
            if one:
                yield one


def _folder(path: Path, below: Path, name: str, status: os.stat_result) -> Iterator[ByHand]:
    """A new folder, one that took the place of another, or one with another mode or owner."""
    there = below.is_dir() and not below.is_symlink()
    if there and is_opaque(str(path)):
        yield ByHand("gone", name)
        there = False
    if not there or _rights(below.lstat()) != _rights(status):
        yield ByHand("mode" if there else "folder", name, *_rights(status))


def _file(path: Path, below: Path, name: str, status: os.stat_result) -> ByHand | None:
    rights = _rights(status)
    if path.is_symlink():
        target = str(path.readlink())
        same = below.is_symlink() and str(below.readlink()) == target
        return None if same else ByHand("link", name, text=target)
    if not stat.S_ISREG(status.st_mode):
        return ByHand("bytes", name, *rights)
    data = path.read_bytes()
    if below.is_file() and not below.is_symlink() and below.read_bytes() == data:
        return None if _rights(below.lstat()) == rights else ByHand("mode", name, *rights)
    text = _text(data)
    return ByHand("bytes", name, *rights) if text is None else ByHand("text", name, *rights, text)


def _rights(status: os.stat_result) -> tuple[int, str]:
    return stat.S_IMODE(status.st_mode), f"{status.st_uid}:{status.st_gid}"


def _text(data: bytes) -> str | None:
    """The file's text, if it can stand in a script as it is."""
    if len(data) > MOST or b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if END in text else text


def script(found: Sequence[ByHand]) -> str:
    """A script of the configure phase that makes these changes; what it can't write stands there as a comment."""
    lines = [
        "#!/bin/sh",
        "# What was changed by hand with: kestrelpi images shell",
        "# needs: KESTRELPI_ROOT",
        "set -eu",
        'cd "$KESTRELPI_ROOT"',
    ]
    for one in found:
        lines += _lines(one)
    return "\n".join(lines) + "\n"


def _lines(one: ByHand) -> list[str]:
    name = shlex.quote(one.name)
    rights = [f"chown -h {one.owner} {name}"] if one.owner != "0:0" or one.kind == "mode" else []
    mode = f"chmod {one.mode:04o} {name}"  # after chown, which takes set-user-id away
    if one.name.startswith(PACKAGES):
        return []
    if one.kind == "gone":
        return ["", f"rm -rf {name}"]
    if one.kind == "folder":
        return ["", f"mkdir -p {name}", *rights, mode]
    if one.kind == "link":
        return ["", f"rm -rf {name}", f"ln -s {shlex.quote(one.text)} {name}"]
    if one.kind == "mode":
        return ["", *rights, mode]
    if one.kind == "bytes":
        return ["", f"# /{one.name} is no short text: put it into /etc/kestrelpi/overlays/node/{one.name}"]
    # a hard link in all generations: a new file takes the name, the old one stays as it is
    return ["", f"rm -f {name}", *_heredoc(one.text, name), *rights, mode]


def _heredoc(text: str, name: str) -> list[str]:
    if not text:
        return [f": >{name}"]
    whole = [f"cat >{name} <<'{END}'", *text.removesuffix("\n").split("\n"), END]
    # a here-document always ends with a newline
    return whole if text.endswith("\n") else [*whole, f"truncate -s -1 {name}"]


def installed(found: Sequence[ByHand]) -> bool:
    """Whether packages were installed or removed."""
    return any(one.name.startswith(PACKAGES) for one in found)


def worth_a_script(found: Sequence[ByHand]) -> bool:
    """Whether the script would do anything."""
    return any(not one.name.startswith(PACKAGES) for one in found)


def private(found: Sequence[ByHand]) -> bool:
    """Whether the script would hold what not everybody may read, such as /etc/shadow."""
    return any(one.kind == "text" and not one.mode & 0o004 for one in found)
