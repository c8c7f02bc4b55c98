"""Carrying out one step of a build: each fills the upper folder of a draft."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import fetched, packages, scaffold, scripts
from kestrelpi.images.flatten import flatten
from kestrelpi.images.layers import Draft, Layers, remove_tree
from kestrelpi.images.plan import BuildPlan, Step
from kestrelpi.paths import data_dir
from kestrelpi.sandbox import CHROOT_PATH, Argv, Sandbox, bind, overlay, system_folders, writable_system_folders

NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
DPKG_CONFIG = """# written by kestrelpi: a node's root is served read-only, so nobody reads documentation there
force-unsafe-io
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/bug/*
"""
SECOND_STAGE = ("/bin/sh", "/debootstrap/debootstrap", "--second-stage")
UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")


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

    def beside(self, box: Sandbox, command: Argv, *writable: Path, devices: bool = False) -> list[str]:
        """The command line of a program on the frontend that may change these folders only."""
        readable = (self.plan.settings.paths.root, data_dir())
        return box.beside(self.stage, command, writable, readable, devices=devices)


def carry_out(step: Step, below: Sequence[str], draft: Draft, shop: Workshop, log: Path) -> None:
    """Fill `draft` with the result of `step` over the layers `below` (keys, the lowest first)."""
    if step.kind == "bootstrap":
        bootstrap(draft, shop, log)
    elif step.kind == "packages":
        install_packages(below, draft, shop, log)
    elif step.kind == "overlay":
        copy_overlay(draft, shop)
    else:
        assert step.script is not None
        run_script(step.script, below, draft, shop, log)


def bootstrap(draft: Draft, shop: Workshop, log: Path) -> None:
    """debootstrap's first stage natively, its second stage in the chroot."""
    plan = shop.plan
    first, second = draft.folder / "first", draft.folder / "second"
    second.mkdir()
    shop.archives.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        *("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", "--merged-usr"),
        *(f"--keyring={plan.mirror.keyring}", f"--cache-dir={shop.archives}"),
        *(plan.suite, first, plan.mirror.uri),
    ]
    inside = shop.beside(Sandbox(), command, draft.folder, shop.archives, devices=True)
    run.stream(inside, log, env=proxies(), line=shop.line)
    if (first / "proc").is_symlink():  # debootstrap's way in a container
        (first / "proc").unlink()
        (first / "proc").mkdir(0o555)
    (first / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True, exist_ok=True)
    (first / "etc/dpkg/dpkg.cfg.d/kestrelpi").write_text(DPKG_CONFIG)
    box = Sandbox(cwd=shop.layers.folder).plus(
        overlay([shop.scaffold.early, shop.scaffold.tree, first], second, draft.work, shop.mount, devices=True),
        *system_folders(shop.mount),
        *shop.scaffold.mounts(shop.mount),
    )
    try:
        run.stream(box.chroot(shop.mount, SECOND_STAGE, NONINTERACTIVE, devices=True), log, line=shop.line)
    except run.CommandFailed as error:
        raise with_debootstraps_log(error, second, log) from error
    draft.tree.rmdir()
    flatten([second, first], draft.tree)
    tidy_bootstrap(draft.tree, plan.mirror.sources())
    for folder in (first, second):
        remove_tree(folder)


def with_debootstraps_log(error: run.CommandFailed, root: Path, log: Path) -> run.CommandFailed:
    """debootstrap says in a log of its own what went wrong: put it into ours, and its end into the error."""
    own = root / "debootstrap/debootstrap.log"
    if not own.is_file():
        return error
    text = own.read_text(encoding="utf-8", errors="replace")
    with log.open("a", encoding="utf-8") as out:
        out.write(text)
    tail = "\n".join(text.splitlines()[-run.TAIL :])
    return run.CommandFailed(SECOND_STAGE, error.returncode, tail, where=str(log))


def tidy_bootstrap(root: Path, sources: str) -> None:
    """Put the package sources in place, and out what the image doesn't need."""
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d").mkdir(exist_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(sources)
    for path in (root / "var/cache/apt/archives").glob("*.deb"):
        path.unlink()
    for path in (*(root / "var/lib/apt/lists").glob("*_*"), root / "var/log/bootstrap.log"):
        path.unlink(missing_ok=True)
    remove_tree(root / "debootstrap")
    for name in UNWANTED:
        for path in [*(root / name).rglob("*")]:
            if not path.is_dir() and path.name != "copyright":
                path.unlink()


def proxies() -> dict[str, str]:
    """The frontend's apt proxy for debootstrap, which doesn't read apt's configuration."""
    found = {}
    for scheme in ("http", "https"):
        line = run.run(["apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy"]).stdout.strip()
        if line:
            found[f"{scheme}_proxy"] = line.partition("=")[2].strip("'\"")
    return found


@contextmanager
def _scratch(shop: Workshop) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=shop.folder, prefix="step-") as name:
        yield Path(name)


def install_packages(below: Sequence[str], draft: Draft, shop: Workshop, log: Path) -> None:
    """One apt run for all lists: resolved, downloaded and unpacked by the frontend's programs."""
    root, plan = shop.mount, shop.plan
    lists = shop.archives.parent / "lists" / plan.suite
    for folder in (shop.archives / "partial", lists / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    with _scratch(shop) as scratch:
        config = scratch / "apt.conf"
        config.write_text(packages.apt_config(root, packages.frontend_acquire(), CHROOT_PATH))
        fetched.verify_all(plan.packages_fetched)
        files = [packages.make_stand_in(scratch), *(one.path for one in plan.packages_fetched)]
        box = whole_root(below, draft, shop, shop.scaffold.quiet).plus(
            *([bind(shop.archives, root / "var/cache/apt/archives"), bind(lists, root / "var/lib/apt/lists")]),
            ["cp", *files, root / "tmp"],
            *packages.other_suites(plan.wanted, plan.mirror, scratch, root),
        )
        env = {**NONINTERACTIVE, "APT_CONFIG": str(config)}
        parts = plan.wanted.parts or {}
        commands = [
            ["apt-get", "update", "--error-on=any"],
            ["apt-get", "dist-upgrade", *plan.wanted.names, *(str(root / "tmp" / one.name) for one in files)],
            *(unpack for name, folders in parts.items() for unpack in _unpack_part(name, folders, scratch, shop)),
        ]
        whole = ["sh", "-euc", "\n".join(shlex.join(one) for one in commands)]
        places = [root, *writable_system_folders(root), root / "var/cache/apt/archives", root / "var/lib/apt/lists"]
        run.stream(shop.beside(box, whole, *places, scratch), log, env=env, line=shop.line)


def _unpack_part(name: str, folders: Sequence[str], scratch: Path, shop: Workshop) -> list[list[str]]:
    """Commands that put some folders of a package into the root, and its version beside them."""
    tree = scratch / f"part-{name}"
    archive = [
        "sh",
        "-euc",
        'cd "$1"; apt-get download "$2"; dpkg-deb -x "$1"/"$2"_*.deb "$1/tree"',
        "sh",
        str(tree),
        name,
    ]
    version = ["sh", "-euc", 'dpkg-deb -f "$1"/*.deb Package Version >"$2"', "sh", str(tree)]
    commands = [["mkdir", str(tree)], archive]
    for folder in folders:
        target = shop.mount / folder
        commands += [
            ["mkdir", "-p", str(target)],
            ["cp", "-rT", "--preserve=mode,timestamps", str(tree / "tree" / folder), str(target)],
            [*version, str(target / ".package")],
        ]
    return commands


def whole_root(below: Sequence[str], draft: Draft, shop: Workshop, *over: Path) -> Sandbox:
    """A root to work in: the layers so far, the scaffold over them (and layers `over` it), what is new in the draft."""
    box = bare_root(below, draft, shop, *over, shop.scaffold.tree)
    return box.plus(*system_folders(shop.mount), *shop.scaffold.mounts(shop.mount))


def bare_root(below: Sequence[str], draft: Draft, shop: Workshop, *over: Path) -> Sandbox:
    """Only the image's own files, as a script on the frontend should see them."""
    lowers = [*over, *(Path(key) / "tree" for key in reversed(below))]
    return Sandbox(cwd=shop.layers.folder).plus(overlay(lowers, draft.tree, draft.work, shop.mount))


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
    with _scratch(shop) as scratch:
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
        return _in_chroot(script, program, whole_root(below, draft, shop), shop, instead), {}
    places = {"@ROOT@": str(shop.mount)}
    env = {name: places.get(value, value) for name, value in script.environment.items()} | script.places
    writable = [shop.mount, *([shop.archives] if "KESTRELPI_CACHE" in env else [])]
    return shop.beside(bare_root(below, draft, shop), instead or [program], *writable), env


def _in_chroot(script: scripts.Script, program: Path, box: Sandbox, shop: Workshop, instead: Argv = ()) -> list[str]:
    inside = shop.mount / "run/kestrelpi"
    box = box.plus(["mkdir", "-p", inside / "module"], ["cp", program, inside / script.name])
    if script.source.module:
        box = box.plus(["mount", "--bind", "-o", "ro", script.source.module, inside / "module"])
    for one in script.fetched:
        target = shop.mount / str(scripts.FETCHED_IN_CHROOT / one.name).lstrip("/")
        box = box.plus(["install", "-D", "/dev/null", target], ["mount", "--bind", "-o", "ro", one.path, target])
    env = {**NONINTERACTIVE, **script.environment, **script.places}
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
