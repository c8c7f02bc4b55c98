"""Generations on disk: finished, immutable builds of an image, and which of them is current."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.files import fsync_folder, switch_link
from kestrelpi.images.layers import DRAFT, remove_tree
from kestrelpi.images.manifest import BuildRecord, Manifest
from kestrelpi.paths import Paths

ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Generation:
    """One finished build: root, boot files and manifest under one id."""

    image: str
    id: str
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def boot(self) -> Path:
        return self.folder / "boot"

    @property
    def squashfs(self) -> Path | None:
        """The folder with the root as squashfs files; None when it was built to be mounted as it is."""
        folder = self.folder / "squashfs"
        return folder if folder.is_dir() else None

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.read(self.folder / "manifest.json")

    @cached_property
    def record(self) -> BuildRecord:
        return BuildRecord.read(self.folder / "build.json")


class Store:
    """All generations of all images of one frontend."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def folder(self, image: str) -> Path:
        """Where the generations of `image` lie."""
        return self.paths.images / image / "generations"

    def images(self) -> list[str]:
        """Names of the images that have a generation."""
        if not self.paths.images.is_dir():
            return []
        return sorted(path.name for path in self.paths.images.iterdir() if self.generations(path.name))

    def generations(self, image: str) -> list[Generation]:
        """The oldest first."""
        folder = self.folder(image)
        if not folder.is_dir():
            return []
        names = sorted(path.name for path in folder.iterdir() if ID.fullmatch(path.name))
        return [Generation(image, name, folder / name) for name in names]

    def generation(self, image: str, id: str) -> Generation:
        """The generation with this id, or the only one whose id starts or ends so; raises UserError."""
        found = [one for one in self.generations(image) if one.id == id]
        found = found or [one for one in self.generations(image) if one.id.startswith(id) or one.id.endswith(id)]
        if len(found) != 1:
            known = ", ".join(one.id for one in self.generations(image)) or "none"
            problem = "several generations" if found else "no generation"
            raise UserError(f"{image} has {problem} {id!r}", where=str(self.folder(image)), fix=f"there are: {known}")
        return found[0]

    def current(self, image: str) -> Generation | None:
        """What nodes without a pin boot."""
        link = self.paths.images / image / "current"
        if not link.is_symlink():
            return None
        id = link.readlink().name
        folder = self.folder(image) / id
        return Generation(image, id, folder) if folder.is_dir() else None

    def switch(self, generation: Generation) -> None:
        """Make a generation the current one, with one rename."""
        switch_link(self.paths.images / generation.image / "current", f"generations/{generation.id}")

    def publish(self, draft: Path, image: str, id: str) -> Generation:
        """Give a finished draft its name in the store and make it current."""
        folder = self.folder(image) / id
        draft.rename(folder)
        fsync_folder(folder.parent)
        generation = Generation(image, id, folder)
        self.switch(generation)
        return generation

    def remove(self, generation: Generation) -> None:
        """Remove a generation; raises UserError for the current one."""
        current = self.current(generation.image)
        if current and current.id == generation.id:
            raise UserError(
                f"{generation.id} is the current generation of {generation.image}",
                where=str(generation.folder),
                fix=f"make another one current first: kestrelpi images rollback {generation.image} ID",
            )
        doomed = generation.folder.with_name(f"{DRAFT}{generation.id}")
        generation.folder.rename(doomed)
        remove_tree(doomed)

    def clean(self) -> None:
        """Remove what killed builds and removals left. The caller holds the build lock."""
        for path in self.paths.images.glob(f"*/generations/{DRAFT}*"):
            remove_tree(path)


def new_id(keys: tuple[str, ...], now: datetime | None = None) -> str:
    """`20261122-013000-1a2b3c4d`: sorts by time (UTC); the end stands for the content."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:8]}"
