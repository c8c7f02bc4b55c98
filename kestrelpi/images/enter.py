"""A shell inside an image, over a layer of its own: nothing that is there changes, and what was done is known."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images import binfmt, by_hand, mirror, scaffold, steps
from kestrelpi.images.by_hand import ByHand
from kestrelpi.images.chain import Step
from kestrelpi.images.layers import Draft, Layers, remove_tree
from kestrelpi.images.plan import BuildPlan, plan
from kestrelpi.images.store import Generation
from kestrelpi.images.workshop import NONINTERACTIVE, Workshop, whole_root
from kestrelpi.paths import Paths
from kestrelpi.sandbox import Sandbox, overlay, system_folders

SHELL = ("/bin/bash", "--norc")
FOLDER = "shell-"
"""Folders below the cache, each with the id of its process."""


@dataclass(frozen=True)
class Left:
    """A shell that ended."""

    status: int
    changes: tuple[ByHand, ...]


def shell(paths: Paths, generation: Generation) -> Left:
    """A shell inside a generation, on the user's terminal."""
    check()
    with workplace(paths) as folder:
        draft = _draft(folder)
        root = folder / "root"
        box = Sandbox().plus(overlay([generation.root], draft.tree, draft.work, root), *system_folders(root))
        status = run.attached(box.chroot(root, SHELL, _prompt(generation.image)))
        return Left(status, tuple(by_hand.changes(draft.tree, generation.root)))


def shell_at(paths: Paths, config: Config, image: str, name: str, where: str = "") -> int:
    """A shell on the user's terminal with all that the step `name` finds, instead of the step; returns its status.

    `name`: a script, or PHASE/SCRIPT. Raises UserError when there is no such step, or those before it haven't run.
    """
    check()
    whole = plan(paths, config, image, where)
    number = find_step(whole, name)
    step, layers = whole.steps[number], Layers(paths.cache / "layers")
    missing = next((one for one in whole.steps[:number] if not one.cached), None)
    if missing:
        raise UserError(
            f"{missing.phase} {missing.name} comes before it and has no result yet",
            where=str(missing.path or missing.name),
            fix=f"kestrelpi images build {image}",
        )
    with workplace(paths) as folder:
        native = scaffold.can_be_native() and not binfmt.is_native()
        made = scaffold.make(paths.cache / "scaffold", native, own_release=whole.suite == mirror.release())
        started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        shop = Workshop(whole, layers, folder, made, started, lambda text: None)
        below = [one.key for one in whole.steps[:number]]
        command, env = _command(step, below, _draft(folder), shop, folder / "scratch")
        return run.attached(command, {**_prompt(f"{image} {step.phase}/{step.name}"), **env})


def _command(
    step: Step, below: Sequence[str], draft: Draft, shop: Workshop, scratch: Path
) -> tuple[list[str], dict[str, str]]:
    scratch.mkdir()
    prompt = _prompt(f"{shop.plan.image} {step.phase}/{step.name}")
    if step.script is None:
        return whole_root(below, draft, shop).chroot(shop.mount, SHELL, {**NONINTERACTIVE, **prompt}), {}
    words = ["/usr/bin/env", *(f"{key}={value}" for key, value in prompt.items()), *SHELL]
    return steps.script_command(step.script, below, draft, shop, scratch, words)


def find_step(whole: BuildPlan, name: str) -> int:
    """The number of the step called `name`: a script, or PHASE/SCRIPT. Raises UserError."""
    found = [
        number
        for number, step in enumerate(whole.steps)
        if name in (step.name, f"{step.phase}/{step.name}") and step.kind != "bootstrap"
    ]
    if len(found) != 1:
        known = ", ".join(f"{step.phase}/{step.name}" for step in whole.steps[1:])
        what = "several scripts are" if found else "no script is"
        raise UserError(f"{what} called {name!r}", fix=f"there are: {known}")
    return found[0]


def _prompt(text: str) -> dict[str, str]:
    return {"PS1": f"{text}:\\w# ", "TERM": os.environ.get("TERM", "dumb")}


def check() -> None:
    """Raise UserError when no shell inside an image can be had."""
    if os.geteuid() != 0:
        raise UserError("a shell inside an image takes root", fix="sudo kestrelpi images shell")
    binfmt.check()


@contextmanager
def workplace(paths: Paths) -> Iterator[Path]:
    """A folder for one shell, removed at the end; those of shells that were killed go too."""
    for path in paths.cache.glob(f"{FOLDER}*"):
        if not Path("/proc", path.name.removeprefix(FOLDER)).exists():
            remove_tree(path)
    folder = paths.cache / f"{FOLDER}{os.getpid()}"
    try:
        for name in ("root", "host"):
            (folder / name).mkdir(parents=True)
        yield folder
    finally:
        remove_tree(folder)


def _draft(folder: Path) -> Draft:
    draft = Draft("shell", folder)
    draft.tree.mkdir()
    draft.tree.chmod(0o755)
    draft.work.mkdir()
    return draft


def execute(generation: Generation, command: list[str]) -> str:
    """Run one command inside the generation and return its output (for tests and checks)."""
    with tempfile.TemporaryDirectory(prefix="kestrelpi-") as name:
        scratch = Path(name)
        root = scratch / "root"
        box = Sandbox().plus(
            ["mount", "-t", "tmpfs", "tmpfs", scratch],
            ["mkdir", root, scratch / "upper", scratch / "work"],
            overlay([generation.root], scratch / "upper", scratch / "work", root),
            *system_folders(root),
        )
        return run.run(box.chroot(root, command, {})).stdout
