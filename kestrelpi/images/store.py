"""Generations on disk: finished, immutable builds of an image, and which of them is current."""

from __future__ import annotations

import hashlib
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import fsync_folder, locked, switch_link
from kestrelpi.images.layers import DRAFT, remove_tree
from kestrelpi.images.manifest import NAME, BuildRecord, Manifest
from kestrelpi.paths import Paths

CURRENT, CANARY = "current", "canary"
"""Links beside an image's generations."""
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
        return Manifest.read(self.folder / NAME)

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
        return self._linked(image, CURRENT)

    def canary(self, image: str) -> Generation | None:
        """What the image's canary group boots before the others do; None: the same as they."""
        return self._linked(image, CANARY)

    def offered(self, image: str, group: str, config: Config) -> Generation | None:
        """What nodes of `group` without a pin boot of `image`; None: not built yet."""
        chosen = config.images.get(image)
        first = self.canary(image) if chosen and chosen.canary == group else None
        return first or self.current(image)

    def _linked(self, image: str, name: str) -> Generation | None:
        link = self.paths.images / image / name
        if not link.is_symlink():
            return None
        id = link.readlink().name
        folder = self.folder(image) / id
        return Generation(image, id, folder) if folder.is_dir() else None

    def switch(self, generation: Generation) -> None:
        """Make a generation the current one, with one rename; raises UserError when it was removed meanwhile."""
        self._point(CURRENT, generation)

    def switch_canary(self, generation: Generation) -> None:
        """Offer a generation to the canary group only, with one rename."""
        self._point(CANARY, generation)

    def _point(self, name: str, generation: Generation) -> None:
        with self._locked(generation.image):
            if not generation.folder.is_dir():
                raise UserError(f"the generation {generation.id} is gone", where=str(generation.folder))
            switch_link(self.paths.images / generation.image / name, f"generations/{generation.id}")

    def _locked(self, image: str) -> AbstractContextManager[None]:
        """For the moments in which what is current and what is removed must not change together."""
        return locked(self.paths.images / image / "current.lock", f"what is current of {image}")

    def end_canary(self, image: str) -> None:
        """The canary group boots what all do."""
        (self.paths.images / image / CANARY).unlink(missing_ok=True)

    def add(self, draft: Path, image: str, id: str) -> Generation:
        """Give a finished draft its name in the store."""
        folder = self.folder(image) / id
        draft.rename(folder)
        fsync_folder(folder.parent)
        return Generation(image, id, folder)

    def publish(self, draft: Path, image: str, id: str) -> Generation:
        """Give a finished draft its name in the store and make it current."""
        generation = self.add(draft, image, id)
        self.switch(generation)
        return generation

    def withdraw(self, generation: Generation) -> Path:
        """Take a generation out of the store, with one rename; returns the folder that is to be removed.

        Raises UserError for the current one and for the canary group's.
        """
        doomed = generation.folder.with_name(f"{DRAFT}{generation.id}")
        with self._locked(generation.image):
            self._check_unused(generation)
            generation.folder.rename(doomed)
        return doomed

    def remove(self, generation: Generation) -> None:
        """Remove a generation; raises UserError for the current one and for the canary group's."""
        remove_tree(self.withdraw(generation))

    def _check_unused(self, generation: Generation) -> None:
        canary = self.canary(generation.image)
        if canary and canary.id == generation.id:
            raise UserError(
                f"{generation.id} is what the canary group of {generation.image} boots",
                where=str(generation.folder),
                fix=f"give that up first: kestrelpi images rollback {generation.image}",
            )
        current = self.current(generation.image)
        if current and current.id == generation.id:
            raise UserError(
                f"{generation.id} is the current generation of {generation.image}",
                where=str(generation.folder),
                fix=f"make another one current first: kestrelpi images rollback {generation.image} ID",
            )

    def clean(self) -> None:
        """Remove what killed builds and removals left. The caller holds the build lock."""
        for path in self.paths.images.glob(f"*/generations/{DRAFT}*"):
            remove_tree(path)
        for folder in self.paths.images.glob("*/generations"):
            with self._locked(folder.parent.name):  # not under the hands of one who switches
                for name in (CURRENT, CANARY, "forced.json"):
                    for path in folder.parent.glob(f".{name}.*"):
                        path.unlink()


def new_id(keys: tuple[str, ...], now: datetime | None = None) -> str:
    """`20261122-013000-1a2b3c4d`: sorts by time (UTC); the end stands for the content."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:8]}"
