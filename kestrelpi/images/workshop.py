"""Where a build works: its folders, and the roots that its steps see."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kestrelpi.images import binfmt, mirror, scaffold
from kestrelpi.images.layers import Draft, Layers, remove_tree
from kestrelpi.images.lock import Lock, Section
from kestrelpi.images.plan import BuildPlan
from kestrelpi.paths import Paths, data_dir
from kestrelpi.sandbox import Argv, Sandbox, overlay, system_folders

NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}


@dataclass(frozen=True)
class Chosen:
    """What one step of the packages phase is to install."""

    section: Section
    added: tuple[str, ...] = ()
    """Tells which step: Step.added."""


@dataclass(frozen=True)
class Versions:
    """Which versions a build takes; by default those of the last build where it can, and the newest of what is new."""

    locked: bool = False
    """Just what the image's lock file says."""
    keep: Lock | None = None
    """What stays, instead of the last build's."""
    chosen: Chosen | None = None
    """What the packages phase is to install, when somebody has been shown that already."""


@dataclass(frozen=True)
class Workshop:
    """Where a build works."""

    plan: BuildPlan
    layers: Layers
    folder: Path
    """For what is needed only while building."""
    scaffold: scaffold.Scaffold
    started: str
    """When the build began, as the name of its log folder."""
    line: Callable[[str], None]
    """Is told every line of output."""
    keep: Lock | None = None
    """What the packages phase should not upgrade."""
    chosen: Chosen | None = None
    """What the packages phase is to install, when somebody has been shown that already."""

    @property
    def mount(self) -> Path:
        """Where a step's root is mounted: in the step's own namespace only."""
        return self.folder / "root"

    @property
    def stage(self) -> Path:
        """Where a step's programs see the host's files, read-only: in the step's own namespace only."""
        return self.folder / "host"

    @property
    def archives(self) -> Path:
        return self.plan.settings.cache

    def epoch(self, below: Sequence[str]) -> int:
        """The time that what is made over these layers gets: when the newest of their packages was published."""
        info = self.layers.info(below[-1]) if below else None
        return info.epoch if info else 0

    def beside(self, box: Sandbox, command: Argv, *writable: Path, devices: bool = False) -> list[str]:
        """The command line of a program on the frontend that may change these folders only."""
        readable = (self.plan.settings.paths.root, data_dir())
        return box.beside(self.stage, command, writable, readable, devices=devices)


@contextmanager
def opened(
    paths: Paths,
    plan: BuildPlan,
    layers: Layers,
    line: Callable[[str], None],
    keep: Lock | None = None,
    chosen: Chosen | None = None,
) -> Iterator[Workshop]:
    """The folder that a build works in; what a killed build left there is removed first."""
    folder = paths.cache / "build"
    remove_tree(folder)
    for name in ("root", "host"):
        (folder / name).mkdir(parents=True)
    native = scaffold.can_be_native() and not binfmt.is_native()
    layers.folder.mkdir(parents=True, exist_ok=True)
    made = scaffold.make(paths.cache / "scaffold", native, own_release=plan.suite == mirror.release())
    try:
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        yield Workshop(plan, layers, folder, made, started, line, keep, chosen)
    finally:
        remove_tree(folder)


@contextmanager
def scratch_folder(shop: Workshop) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=shop.folder, prefix="step-") as name:
        yield Path(name)


def whole_root(below: Sequence[str], draft: Draft, shop: Workshop, *over: Path) -> Sandbox:
    """A root to work in: the layers so far, the scaffold over them (and layers `over` it), what is new in the draft."""
    box = bare_root(below, draft, shop, *over, shop.scaffold.tree)
    return box.plus(*system_folders(shop.mount), *shop.scaffold.mounts(shop.mount))


def bare_root(below: Sequence[str], draft: Draft, shop: Workshop, *over: Path) -> Sandbox:
    """Only the image's own files, as a script on the frontend should see them."""
    lowers = [*over, *(Path(key) / "tree" for key in reversed(below))]
    return Sandbox(cwd=shop.layers.folder).plus(overlay(lowers, draft.tree, draft.work, shop.mount))
