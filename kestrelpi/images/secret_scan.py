"""Looks through a finished root for secrets: everything in an image can be read by every node and over NFS.

It finds what gets in by accident: a key that a package's script made, a token that somebody put into an overlay. It
can't find what somebody hides.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.paths import Paths

LARGEST = 128 << 10
"""Bytes of a file that is looked into; keys and tokens are small."""
HEAD = 32 << 10
"""Bytes of it that are read: a key may follow its certificate."""
SMALLEST = 16
"""Bytes: a shorter file holds no key."""
BULK = ("usr/lib/modules", "usr/lib/firmware", "usr/share/zoneinfo", "usr/share/i18n")
"""Folders of thousands of files that packages alone fill."""
SHOWN = 10
"""Findings that an error names."""

NAMES: Mapping[str, str] = {
    "etc/ssh/ssh_host_*_key": "an SSH host key",
    "etc/munge/munge.key": "a Munge key",
    "etc/kestrelpi/*.key": "a node's key",
    "etc/rancher/node/password": "a node's k3s password",
    "etc/rancher/k3s/*token": "a k3s token",
    "var/lib/rancher/k3s/server/*token": "a k3s token",
    "var/lib/rancher/k3s/server/tls/*.key": "a private key of k3s",
    "var/lib/docker/swarm/certificates/*.key": "a private key of Docker Swarm",
}
"""Files that are secret whatever is in them, unless they are empty. Patterns of fnmatch, in which * takes in / too."""

PRIVATE_KEY = re.compile(
    rb"^-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY(?: BLOCK)?-----\r?\n(?:[A-Za-z-]+: [^\n]*\n|\r?\n)*[A-Za-z0-9+/=]{16}",
    re.M,
)
CONTENTS: Sequence[tuple[bytes, re.Pattern[bytes], str]] = (
    (b"PRIVATE KEY", PRIVATE_KEY, "a private key"),
    (b"PuTTY-User-Key", re.compile(rb"^PuTTY-User-Key-File-\d: [\s\S]*^Private-Lines: ", re.M), "a private key"),
    (b"SWMTKN-1-", re.compile(rb"SWMTKN-1-[0-9a-z]{40,}-[0-9a-z]{20,}"), "a Swarm join token"),
    (b"SWMKEY-1-", re.compile(rb"SWMKEY-1-[A-Za-z0-9+/]{40,}"), "a Swarm unlock key"),
    (b"K10", re.compile(rb"\bK10[0-9a-f]{64}::[A-Za-z0-9:]+"), "a k3s token"),
)
"""What must be in the file at all, how it looks there, and what it is."""

HARMLESS = ("etc/ssl/private/ssl-cert-snakeoil.key",)
"""Made by a package to stand where a key must be; nobody trusts it."""
NO_PASSWORD = re.compile(r"[!*x]*")
"""A password field without a hash: locked, or none."""


@dataclass(frozen=True)
class Secret:
    """A secret that lies in a root."""

    path: str
    """Absolute, as a node sees it."""
    what: str


def check(root: Path, paths: Paths, image: str, allowed: Sequence[str]) -> None:
    """Raise UserError that names every secret below `root`, but for the `allowed` paths (patterns of fnmatch)."""
    found = [
        one for one in scan(root, known_secrets(paths)) if not any(fnmatchcase(one.path, glob) for glob in allowed)
    ]
    if not found:
        return
    lines = [f"{one.path}: {one.what}" for one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} more")
    raise UserError(
        f"the image {image} would have {len(found)} secret{'s' * (len(found) > 1)} inside, which every node, and who "
        "reaches the NFS export, could read; it is not built",
        detail="\n".join(lines),
        fix="remove the file in a script of post-install, and hand it to the nodes by overlays/runtime or by `secrets` "
        f"in module.yaml; if it is meant to be there: images.{image}.allow_secrets: [{found[0].path}]",
    )


def known_secrets(paths: Paths) -> dict[bytes, str]:
    """The frontend's own secrets: content → what it is."""
    folder = paths.secrets
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pub")
    found = {path.read_bytes().strip(): f"the frontend's {path.relative_to(folder)}" for path in files}
    return {content: what for content, what in found.items() if len(content) >= SMALLEST}


def scan(root: Path, known: Mapping[bytes, str] | None = None) -> Iterator[Secret]:
    """The secrets below `root`, in no order. `known`: contents of files that are secrets, and what they are."""
    for name, size in _files(str(root)):
        what = _by_name(name) if size else ""
        if not what and SMALLEST <= size <= LARGEST:
            what = _by_content(os.path.join(root, name), size, known or {})  # noqa: PTH118 (of 20,000 files)
        if what and name not in HARMLESS and not is_public(root, name):
            yield Secret(f"/{name}", what)
    yield from _password_hashes(root)


def _files(root: str) -> Iterator[tuple[str, int]]:
    """Every regular file with its size; the name without a leading slash."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name not in BULK:
                        waiting.append(name)
                    continue
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield name, found.st_size


FOLDERS = tuple({pattern.partition("/")[0] for pattern in NAMES})


def _by_name(name: str) -> str:
    if not name.startswith(FOLDERS):
        return ""
    return next((what for pattern, what in NAMES.items() if fnmatchcase(name, pattern)), "")


def _by_content(path: str, size: int, known: Mapping[bytes, str]) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        head = os.read(fd, HEAD)
    finally:
        os.close(fd)
    for mark, pattern, what in CONTENTS:
        if mark in head and pattern.search(head):
            return what
    return known.get(head.strip(), "") if size <= HEAD else ""


def is_public(root: Path, name: str) -> bool:
    """Whether the file is just as its Debian package has it: anybody can have it there (an example, a test's key)."""
    digest = hashlib.md5((root / name).read_bytes(), usedforsecurity=False).hexdigest()
    wanted = {f"{digest}  {one}" for one in (name, name.removeprefix("usr/"))}  # packages may not know of /usr-merge
    lists = (root / "var/lib/dpkg/info").glob("*.md5sums")
    return any(wanted & set(one.read_text(encoding="utf-8", errors="replace").splitlines()) for one in lists)


def _password_hashes(root: Path) -> Iterator[Secret]:
    for name in ("etc/passwd", "etc/shadow", "etc/gshadow", "etc/shadow-", "etc/gshadow-"):
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue
        for who in _with_password(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            yield Secret(f"/{name}", f"a password hash of {who}")


def _with_password(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        fields = line.split(":")
        if len(fields) > 1 and not NO_PASSWORD.fullmatch(fields[1]):
            yield fields[0]
