"""What the TFTP server asks for its files, and what it tells about its transfers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

EventKind = Literal["start", "done", "missing", "aborted", "timeout", "refused", "malformed"]


@dataclass(frozen=True)
class BootFile:
    """One file that a Pi may have."""

    key: str
    """Identity of the content: the same key means the same bytes, so prepared packets are shared under it."""
    size: int
    """Bytes."""
    open: Path | bytes
    """Where the bytes are, or the bytes themselves (rendered files)."""


class PathRefused(Exception):
    """A FileSource raises it for a path that leads out of what is served; the client gets ERROR 2."""


class FileSource(Protocol):
    """Decides which bytes a client gets for a path."""

    def find(self, path: str, client: str) -> BootFile | None:
        """The file for `path` as the client at the IPv4 address `client` wrote it; None: there is none (ERROR 1).

        Raises PathRefused for a path that escapes.
        """

    def reload(self) -> None:
        """Look again at what is served; keeps the last good state when the new one is nonsense."""


@dataclass(frozen=True)
class TransferEvent:
    """Something that happened to a transfer, for the boot timeline and the log."""

    kind: EventKind
    path: str
    client: str
    """The IPv4 address."""
    bytes: int = 0
    """Bytes of the file that the client has acknowledged."""
    seconds: float = 0.0
    """Since the request."""
    detail: str = ""


def normalise(path: str) -> str:
    """`path` without leading, double and trailing slashes, `.` and `..`; raises PathRefused when it climbs out.

    A Pi 5 asks for `S//config.txt` and tftp-hpa's users for `/config.txt`: both mean the same file.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise PathRefused(path)
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


@dataclass(frozen=True)
class FolderSource:
    """Serves one folder as it is: for tests, measurements and a lab without images."""

    root: Path

    def find(self, path: str, client: str) -> BootFile | None:
        root = self.root.resolve()
        try:
            found = (root / normalise(path)).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # not there, a loop of links, a NUL byte
            return None
        if not found.is_relative_to(root):
            raise PathRefused(path)
        if not found.is_file():
            return None
        status = found.stat()
        return BootFile(f"{found}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}", status.st_size, found)

    def reload(self) -> None:
        """Nothing is kept, so there is nothing to reload."""
