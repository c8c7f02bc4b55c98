"""A packages step: just the archives of one section of a lock file, installed in one run of the frontend's apt."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images import fetched, packages, pool, scaffold
from kestrelpi.images.chain import Step
from kestrelpi.images.layers import Draft
from kestrelpi.images.lock import Package, Section
from kestrelpi.images.manifest import installed_packages
from kestrelpi.images.plan import BuildPlan
from kestrelpi.images.resolve import resolve
from kestrelpi.images.workshop import NONINTERACTIVE, Workshop, scratch_folder, whole_root
from kestrelpi.sandbox import CHROOT_PATH, bind, writable_system_folders

ONLY_THESE = (("sourceparts", "/dev/null"), ("preferencesparts", "/dev/null"))


def install_packages(step: Step, below: Sequence[str], draft: Draft, shop: Workshop, log: Path) -> Section:
    """Install what the lock file says or, without one, what apt decides; returns what that was.

    Raises added.DoesNotFit when a step that adds packages can't.
    """
    plan = shop.plan
    with scratch_folder(shop) as scratch:
        job = job_of(step, plan, scratch)
        chosen = plan.lock.sections[step.phase] if plan.lock else None
        if shop.chosen and shop.chosen.added == step.added:
            chosen = shop.chosen.section
        chosen = chosen or resolve(job, below, shop, scratch, log, shop.keep)
        pool.fetch(chosen.packages, plan.mirror, shop.archives, log, shop.line)
        _install(job, chosen, below, draft, shop, scratch, log)
    _check(chosen, draft.tree, job.wanted)
    return chosen


def job_of(step: Step, plan: BuildPlan, scratch: Path) -> packages.Job:
    """What a packages step installs; package files are examined, or made in `scratch`."""
    if step.added:
        return packages.Job(packages.Wanted(step.added), over=True)
    fetched.verify_all(plan.packages_fetched)
    files = (packages.make_stand_in(scratch), *(one.path for one in plan.packages_fetched))
    return packages.Job(plan.wanted, files)


def _install(
    job: packages.Job, chosen: Section, below: Sequence[str], draft: Draft, shop: Workshop, scratch: Path, log: Path
) -> None:
    """One apt run that knows of no other packages: so its result depends on nothing else."""
    root, wanted, files = shop.mount, job.wanted, job.files
    lists, config, sources = scratch / "lists", scratch / "apt.conf", scratch / "lock.sources"
    (lists / "partial").mkdir(parents=True)
    sources.write_text(pool.flat_repository(chosen.packages, scratch / "repository"))
    only = "".join(f'Dir::Etc::{name} "{path}";\n' for name, path in (("sourcelist", sources), *ONLY_THESE))
    config.write_text(packages.apt_config(root, packages.frontend_acquire(), CHROOT_PATH) + only)
    archives = root / "var/cache/apt/archives"
    box = whole_root(below, draft, shop, shop.scaffold.quiet).plus(
        *([bind(shop.archives, archives), bind(lists, root / "var/lib/apt/lists")]),
        *(["cp", str(file), str(root / "tmp")] for file in files),
        *packages.other_suites(wanted, shop.plan.mirror, scratch, root),
    )
    names = [name.partition("/")[0] for name in wanted.names]
    parts = [(one, (wanted.parts or {})[one.name]) for one in chosen.packages if one.name in (wanted.parts or {})]
    commands = [
        ["apt-get", "update", "--error-on=any"],
        ["apt-get", *job.command, *names, *(str(root / "tmp" / one.name) for one in files)],
        *(unpack for one, folders in parts for unpack in _unpack_part(one, archives, folders, scratch, root)),
        ["sh", "-euc", scaffold.PUT_BACK, "sh", str(root)],
    ]
    whole = ["sh", "-euc", "\n".join(shlex.join(one) for one in commands)]
    places = [root, *writable_system_folders(root), archives, root / "var/lib/apt/lists", scratch]
    env = {**NONINTERACTIVE, "APT_CONFIG": str(config), "SOURCE_DATE_EPOCH": str(chosen.epoch)}
    run.stream(shop.beside(box, whole, *places), log, env=env, line=shop.line)


def _unpack_part(one: Package, archives: Path, folders: Sequence[str], scratch: Path, root: Path) -> list[list[str]]:
    """Commands that put some folders of a package into the root, and its version beside them."""
    tree = scratch / f"part-{one.name}"
    commands = [["dpkg-deb", "-x", str(archives / one.file), str(tree)]]
    for folder in folders:
        target = root / folder
        about = f"Package: {one.name}\nVersion: {one.version}\n"
        commands += [
            ["mkdir", "-p", str(target)],
            ["cp", "-rT", "--preserve=mode,timestamps", str(tree / folder), str(target)],
            ["sh", "-euc", 'printf %s "$1" >"$2"', "sh", about, str(target / ".package")],
        ]
    return commands


def _check(chosen: Section, tree: Path, wanted: packages.Wanted) -> None:
    """Raise UserError when the root doesn't have just these packages."""
    status = tree / "var/lib/dpkg/status"
    there = installed_packages(status.read_text(encoding="utf-8")) if status.is_file() else {}
    missing = [
        f"{one.name} {one.version}"
        for one in chosen.packages
        if one.name not in (wanted.parts or {}) and there.get(one.name) != one.version
    ]
    if missing:
        raise UserError(
            f"these packages should be in the image and are not: {', '.join(missing)}",
            fix="build without --locked: that makes a new lock file",
        )
