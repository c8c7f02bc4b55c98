"""Sealed layers: the results of steps, each an overlay's upper folder under its content key."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.files import fsync_folder, write_whole
from kestrelpi.images.flatten import forget_origin
from kestrelpi.images.tree import clamp, write_digests

DRAFT = ".new-"
DYING = 10.0
"""Seconds for which the last processes of a build that was just killed may still put files into what is removed."""
SMALL = 300
"""A layer with no more files than this is synced file by file: syncing all of a busy disk takes longer."""


@dataclass(frozen=True)
class LayerInfo:
    """layer.json: what went into a layer."""

    key: str
    phase: str
    name: str
    fields: Mapping[str, str]
    seconds: float = 0.0
    packages: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    """The time that its newest files have: seconds since 1970."""


@dataclass(frozen=True)
class Draft:
    """A layer that is being made."""

    key: str
    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def work(self) -> Path:
        return self.folder / "work"


class Layers:
    """The layers in one folder, shared by all images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tree(self, key: str) -> Path:
        return self.folder / key / "tree"

    def has(self, key: str) -> bool:
        return (self.folder / key / "layer.json").is_file()

    def sealed(self) -> list[str]:
        """The keys of all sealed layers."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))

    def info(self, key: str) -> LayerInfo | None:
        path = self.folder / key / "layer.json"
        return LayerInfo(**json.loads(path.read_text())) if path.is_file() else None

    @contextmanager
    def draft(self, key: str) -> Iterator[Draft]:
        """An empty layer to fill; what isn't sealed at the end is removed."""
        draft = Draft(key, self.folder / f"{DRAFT}{key}")
        remove_tree(draft.folder)
        draft.tree.mkdir(parents=True)
        draft.tree.chmod(0o755)
        draft.work.mkdir()
        try:
            yield draft
        finally:
            remove_tree(draft.folder)

    def seal(self, draft: Draft, info: LayerInfo) -> None:
        """Give a finished draft its name: from here on it never changes."""
        remove_tree(draft.work)
        forget_origin(draft.tree)
        if info.epoch:
            clamp(draft.tree, info.epoch)
        write_digests(draft.tree, draft.folder)
        write_whole(draft.folder / "layer.json", json.dumps(asdict(info), indent=1))
        sync_tree(draft.folder)
        draft.folder.rename(self.folder / draft.key)
        fsync_folder(self.folder)

    def remove(self, key: str) -> None:
        """Forget a layer: gone by one rename first, so that a killed removal leaves no half layer."""
        doomed = self.folder / f"{DRAFT}{key}"
        (self.folder / key).rename(doomed)
        remove_tree(doomed)

    def clean(self) -> None:
        """Remove what a killed build left. The caller holds the build lock."""
        for path in self.folder.parent.glob(f"*/{DRAFT}*"):  # what is packed and kept lies beside the layers
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


def remove_tree(folder: Path) -> None:
    """Remove a folder if it is there. Refuses one on which something is mounted."""
    if not folder.exists():
        return
    if os.path.ismount(folder):
        raise UserError("something is mounted here, so it is not removed", where=str(folder), fix=f"umount {folder}")
    shutil.rmtree(folder, onerror=_gone_or_filled)
    deadline = time.monotonic() + DYING
    while folder.exists():
        if time.monotonic() > deadline:
            raise UserError("something still writes here", where=str(folder), fix=f"fuser -v {folder}")
        shutil.rmtree(folder, onerror=_gone_or_filled)


def _gone_or_filled(function: object, path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
    """Let pass what another round of removing mends: somebody else removed the file, or put one into the folder."""
    cause = error[1]
    if not (isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST)):
        raise cause


def sync_tree(folder: Path) -> None:
    """Bring a folder's content to disk."""
    files = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    regular = [path for path in files if path.is_file() and not path.is_symlink()]
    if len(files) > SMALL:
        run.run(["sync", "-f", folder])
        return
    for path in regular:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for parent, _, _ in os.walk(folder):
        fsync_folder(Path(parent))
