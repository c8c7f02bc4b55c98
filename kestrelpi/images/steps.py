"""Carrying out one step of a build: each fills the upper folder of a draft."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import fetched, scripts
from kestrelpi.images.bootstrap import bootstrap
from kestrelpi.images.chain import Step
from kestrelpi.images.install import install_packages
from kestrelpi.images.layers import Draft
from kestrelpi.images.lock import write_section
from kestrelpi.images.workshop import NONINTERACTIVE, Workshop, bare_root, scratch_folder, whole_root
from kestrelpi.sandbox import Argv, Sandbox


def carry_out(step: Step, below: Sequence[str], draft: Draft, shop: Workshop, log: Path) -> int:
    """Fill `draft` with the result of `step` over the layers `below` (keys, the lowest first).

    Returns the time that the newest of its files are to have (seconds since 1970).
    """
    epoch = shop.epoch(below)
    if step.kind in ("bootstrap", "packages"):
        first = step.kind == "bootstrap"
        chosen = bootstrap(draft, shop, log) if first else install_packages(step, below, draft, shop, log)
        write_section(chosen, draft.folder)
        return max(epoch, chosen.epoch)
    if step.kind == "overlay":
        copy_overlay(draft, shop)
    else:
        assert step.script is not None
        run_script(step.script, below, draft, shop, log)
    return epoch


def copy_overlay(draft: Draft, shop: Workshop) -> None:
    """Put the node overlay's files into the layer with their modes; they belong to root."""
    for name, one in shop.plan.node_overlay.items():
        target = draft.tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if one.path.is_symlink():
            target.symlink_to(one.path.readlink())
            continue
        target.write_bytes(scripts.render(one, shop.plan.settings))
        target.chmod(one.path.stat().st_mode & 0o7777)


def run_script(script: scripts.Script, below: Sequence[str], draft: Draft, shop: Workshop, log: Path) -> None:
    """Run a script with the variables that it declared, and nothing else."""
    with scratch_folder(shop) as scratch:
        command, env = script_command(script, below, draft, shop, scratch)
        run.stream(command, log, env=env, line=shop.line)


def script_command(
    script: scripts.Script, below: Sequence[str], draft: Draft, shop: Workshop, scratch: Path, instead: Argv = ()
) -> tuple[list[str], dict[str, str]]:
    """The command line that runs a script in its place, and its environment; `instead`: another program there."""
    fetched.verify_all(script.fetched)
    program = scratch / script.name
    program.write_bytes(script.text)
    program.chmod(0o755)
    if script.in_chroot:
        box = whole_root(below, draft, shop)
        return _in_chroot(script, program, box, shop, shop.epoch(below), instead), {}
    places = {"@ROOT@": str(shop.mount)}
    env = {name: places.get(value, value) for name, value in script.environment.items()} | script.places
    env["SOURCE_DATE_EPOCH"] = str(shop.epoch(below))
    writable = [shop.mount, *([shop.archives] if "KESTRELPI_CACHE" in env else [])]
    return shop.beside(bare_root(below, draft, shop), instead or [program], *writable), env


def _in_chroot(
    script: scripts.Script, program: Path, box: Sandbox, shop: Workshop, epoch: int, instead: Argv = ()
) -> list[str]:
    inside = shop.mount / "run/kestrelpi"
    box = box.plus(["mkdir", "-p", inside / "module"], ["cp", program, inside / script.name])
    if script.source.module:
        box = box.plus(["mount", "--bind", "-o", "ro", script.source.module, inside / "module"])
    for one in script.fetched:
        target = shop.mount / str(scripts.FETCHED_IN_CHROOT / one.name).lstrip("/")
        box = box.plus(["install", "-D", "/dev/null", target], ["mount", "--bind", "-o", "ro", one.path, target])
    env = {**NONINTERACTIVE, "SOURCE_DATE_EPOCH": str(epoch), **script.environment, **script.places}
    return box.chroot(shop.mount, instead or [f"/run/kestrelpi/{script.name}"], env)


def foreign_programs(tree: Path) -> list[Path]:
    """Programs of the frontend's architecture that got into a layer: the scaffold must never leak."""
    found = []
    for parent, _, names in os.walk(tree):
        for name in names:
            path = Path(parent) / name
            if not path.is_symlink() and path.is_file() and _machine(path) == EM_X86_64:
                found.append(path)
    return found


EM_X86_64 = 62


def _machine(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else 0


def check_layer(tree: Path) -> None:
    """Raise UserError when a step left something that must not be in an image."""
    foreign = foreign_programs(tree)
    if foreign:
        names = ", ".join(f"/{path.relative_to(tree)}" for path in foreign[:5])
        raise UserError(f"the step put programs into the image that no Pi can run (x86-64): {names}")


def free_bytes(path: Path) -> int:
    """What is free on the disk that `path` (or its nearest existing parent) lies on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
