"""A shell inside a generation, over a scratch layer: the generation can't be changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import binfmt
from kestrelpi.images.store import Generation
from kestrelpi.paths import Paths
from kestrelpi.sandbox import Sandbox, overlay, system_folders


def box(generation: Generation, scratch: Path) -> tuple[Sandbox, Path]:
    """The sandbox and the root inside it; what is written goes to a tmpfs of the sandbox."""
    root = scratch / "root"
    return (
        Sandbox().plus(
            ["mount", "-t", "tmpfs", "tmpfs", scratch],
            ["mkdir", root, scratch / "upper", scratch / "work"],
            overlay([generation.root], scratch / "upper", scratch / "work", root),
            *system_folders(root),
        ),
        root,
    )


def shell(paths: Paths, generation: Generation) -> None:
    """Become a shell inside the generation. Doesn't return."""
    if os.geteuid() != 0:
        raise UserError("a shell inside an image takes root", fix="sudo kestrelpi images shell")
    binfmt.check()
    paths.run.mkdir(parents=True, exist_ok=True)
    scratch = paths.run / "shell"
    scratch.mkdir(exist_ok=True)
    sandbox, root = box(generation, scratch)
    prompt = f"{generation.image}:\\w# "
    run.replace(sandbox.chroot(root, ["/bin/bash", "--norc"], {"PS1": prompt, "TERM": os.environ.get("TERM", "dumb")}))


def execute(generation: Generation, command: list[str]) -> str:
    """Run one command inside the generation and return its output (for tests and checks)."""
    with tempfile.TemporaryDirectory(prefix="kestrelpi-") as name:
        sandbox, root = box(generation, Path(name))
        return run.run(sandbox.chroot(root, command, {})).stdout
