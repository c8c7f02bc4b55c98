"""The difference between the files that the scripts staged and those below the root; and carrying it out."""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.files import switch_link, write_whole


@dataclass(frozen=True)
class Content:
    """A regular file, or a symbolic link when `link` isn't empty."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"link {self.link}".encode() if self.link else self.data).hexdigest()

    def lines(self) -> list[str] | None:
        """For a diff; None: not text."""
        if self.link:
            return [f"-> {self.link}\n"]
        if b"\0" in self.data:
            return None
        lines = self.data.decode(errors="replace").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n\\ No newline at end of file\n"
        return lines


@dataclass(frozen=True)
class FileChange:
    """One file that will be made, replaced or removed."""

    name: str
    """Its path as the machine below the root sees it: `/etc/hosts`."""
    path: Path
    """Where that is here."""
    old: Content | None
    new: Content | None

    @property
    def kind(self) -> str:
        if self.old is None:
            return "make"
        return "remove" if self.new is None else "replace"

    def diff(self) -> str:
        """Unified diff, empty when only forced."""
        old = self.old.lines() if self.old else []
        new = self.new.lines() if self.new else []
        if old is None or new is None:
            return f"binary file {self.name} differs\n"
        names = ("/dev/null" if self.old is None else self.name, "/dev/null" if self.new is None else self.name)
        text = "".join(difflib.unified_diff(old, new, *names))
        if self.old and self.new and self.old.mode != self.new.mode:
            text += f"mode of {self.name}: {self.old.mode:o} -> {self.new.mode:o}\n"
        return text


def read_tree(stage: Path) -> dict[str, Content]:
    """What lies below `stage`: `/etc/hosts` and so on, sorted."""
    found = {}
    for parent, folders, files in os.walk(stage):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in files + links:
            path = Path(parent) / name
            content = read_content(path)
            if content is None:
                raise UserError("a script staged something that is neither file nor link", where=str(path))
            found[f"/{path.relative_to(stage)}"] = content
    return dict(sorted(found.items()))


def read_content(path: Path) -> Content | None:
    """The file or link at `path`; None: there is none. Raises UserError where a folder is in the way."""
    if path.is_symlink():
        return Content(mode=0o777, link=str(path.readlink()))
    if path.is_dir():
        raise UserError("there is a folder where a file should be", where=str(path))
    if not path.is_file():
        return None
    return Content(path.read_bytes(), path.stat().st_mode & 0o7777)


def compare(
    staged: Mapping[str, Content], ours: Mapping[str, str], root: Path, force: bool = False
) -> Iterator[FileChange]:
    """What must change below `root`.

    `ours`: files that an earlier run made, with the hash of what it wrote. One that isn't staged any more is removed,
    unless somebody has changed it since.
    """
    for name, new in staged.items():
        path = root / name[1:]
        old = read_content(path)
        if old != new or force:
            yield FileChange(name, path, old, new)
    for name in sorted(set(ours) - set(staged)):
        path = root / name[1:]
        old = read_content(path)
        if old and old.sha256 == ours[name]:
            yield FileChange(name, path, old, None)


def carry_out(change: FileChange) -> None:
    """Make, replace or remove one file, whole or not at all."""
    if change.new is None:
        change.path.unlink(missing_ok=True)
        return
    change.path.parent.mkdir(parents=True, exist_ok=True)
    if change.new.link:
        switch_link(change.path, change.new.link)
        return
    try:
        write_whole(change.path, change.new.data, change.new.mode)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A container's /etc/hosts is a mount of its own: nothing can be renamed over it, so it's written in place.
        change.path.write_bytes(change.new.data)
