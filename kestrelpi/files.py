"""Files that are written whole or not at all, and locks that a crash can't leave behind."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from kestrelpi.errors import UserError


def write_whole(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `content`: temporary file beside it, fsync, rename, fsync of the folder.

    A reader sees the old file or the new one, never a part, even when the power fails in between.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def append(path: Path, lines: bytes) -> None:
    """Add `lines` at the end of a file, which is made with its folder if need be.

    In one call, and by hand, because `open` takes four times as long.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o644)
    try:
        os.write(file, lines)
    finally:
        os.close(file)


class Later:
    """Appends to many files that a thread carries out: making a file can take longer than a Pi should wait.

    A room's are spread over some seconds: to make a thousand files can take a processor for one, as the questions of
    their Pis do.
    """

    AT_ONCE, SHARE, WAITING = 64, 1 / 8, 1024
    """Files that are written at once: so many, or that share of those that wait if it is more, and all but so many."""
    MOST = 4096
    """Files that wait at most. In a flood, which may be faster than the disk, who remembers more writes himself."""

    def __init__(self) -> None:
        self._lines: dict[Path, bytes] = {}
        self._written: Path | None = None
        """The file to which a thread adds now."""
        self._lock = threading.Lock()
        """Of what is remembered: never held while a disk works, because `append` must not wait for one."""
        self._disk = threading.Lock()

    def append(self, path: Path, lines: bytes) -> None:
        """Remember what is to be added to a file. Raises OSError when that takes room that must be made."""
        with self._lock:
            self._lines[path] = self._lines.get(path, b"") + lines
            oldest = next(iter(self._lines)) if len(self._lines) > self.MOST else None
        if oldest:
            self.settle(oldest)

    def settle(self, path: Path) -> None:
        """Before a file is read or replaced: add now what is to be added. Raises OSError; the lines are lost then."""
        with self._lock:
            if path not in self._lines and path != self._written:
                return
        with self._disk:
            with self._lock:
                lines = self._lines.pop(path, b"")
                self._written = path
            try:
                if lines:
                    append(path, lines)
            finally:
                self._written = None

    def due(self, everything: bool = False) -> Callable[[], None] | None:
        """If there is anything: what adds the oldest of it, or `everything`, for a thread.

        Raises OSError; one file's lines are lost then.
        """
        with self._lock:
            paths = list(self._lines)
        if not everything:
            del paths[max(self.AT_ONCE, round(len(paths) * self.SHARE), len(paths) - self.WAITING) :]
        return partial(self._write, paths) if paths else None

    def _write(self, paths: list[Path]) -> None:
        for path in paths:
            self.settle(path)


def fsync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def switch_link(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target` with one rename, so that it always points somewhere."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
    fsync_folder(link.parent)


@contextmanager
def locked(path: Path, what: str, wait: float = 10.0) -> Iterator[None]:
    """Hold an exclusive flock on `path`; the kernel drops it when the process dies.

    Waits up to `wait` seconds, then raises UserError naming the process that holds it, its command and since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise UserError(
                        f"{what} is locked by {holder}",
                        where=str(path),
                        fix="wait for it to end, or end it, and try again",
                    ) from None
                time.sleep(0.05)
        with suppress(OSError):  # the note is for people; on a full disk the lock must do without
            file.truncate(0)
            file.write(f"{holder_note()}\n")
            file.flush()
        yield


def holder_note() -> str:
    """This process, as an error that another one gives will name it."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f"process {os.getpid()} ({command}) since {time.strftime('%Y-%m-%d %H:%M:%S')}"
