"""The first step of a build: debootstrap's minimal root, from the mirror or from a lock file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from kestrelpi import run
from kestrelpi.images import pool, scaffold
from kestrelpi.images.base_index import base_section
from kestrelpi.images.flatten import flatten
from kestrelpi.images.layers import Draft, remove_tree
from kestrelpi.images.lock import DEBIAN, Section, section
from kestrelpi.images.workshop import NONINTERACTIVE, Workshop, scratch_folder
from kestrelpi.sandbox import Sandbox, overlay, system_folders

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
SECOND_STAGE = ("/bin/sh", "-euc", f"/bin/sh /debootstrap/debootstrap --second-stage\n{scaffold.PUT_BACK}", "sh", "")
FOR_HTTPS = ("ca-certificates",)
"""What debootstrap adds for a mirror with https://, and wouldn't for a lock file."""
UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")


def bootstrap(draft: Draft, shop: Workshop, log: Path) -> Section:
    """debootstrap's first stage natively, its second stage in the chroot; returns what was installed."""
    plan = shop.plan
    first, second = draft.folder / "first", draft.folder / "second"
    second.mkdir()
    shop.archives.mkdir(parents=True, exist_ok=True)
    with scratch_folder(shop) as scratch:
        locked = plan.lock.sections["bootstrap"] if plan.lock else None
        https = FOR_HTTPS if plan.mirror.uri.startswith("https://") else ()
        wanted = locked or base_section(shop, scratch, log, https)
        command: list[str | Path] = [
            *("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", "--merged-usr"),
            *_mirror(wanted, FOR_HTTPS if locked else https, shop, scratch, log),
            *(f"--cache-dir={shop.archives}", plan.suite),
            *(first, f"file://{scratch}"),
        ]
        inside = shop.beside(Sandbox(), command, draft.folder, shop.archives, scratch, devices=True)
        run.stream(inside, log, line=shop.line)
    chosen = locked or section_of(first)
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
    env = {**NONINTERACTIVE, "SOURCE_DATE_EPOCH": str(chosen.epoch)}
    try:
        run.stream(box.chroot(shop.mount, SECOND_STAGE, env, devices=True), log, line=shop.line)
    except run.CommandFailed as error:
        raise with_debootstraps_log(error, second, log) from error
    draft.tree.rmdir()
    flatten([second, first], draft.tree)
    tidy_bootstrap(draft.tree, plan.mirror.sources())
    for folder in (first, second):
        remove_tree(folder)
    return chosen


def _mirror(wanted: Section, also: Sequence[str], shop: Workshop, folder: Path, log: Path) -> list[str]:
    """Have these archives in the cache, and a mirror in `folder` that debootstrap finds them by; returns its options.

    The mirror bears no signature: debootstrap compares each archive with its SHA-256 there. `also`: what it is to take
    besides the base system, if it is among them.
    """
    pool.fetch(wanted.packages, shop.plan.mirror, shop.archives, log, shop.line)
    pool.debootstrap_mirror(wanted, shop.plan.suite, folder)
    more = [one.name for one in wanted.packages if one.name in also]
    return ["--no-check-gpg", *(f"--include={name}" for name in more)]


def section_of(root: Path) -> Section:
    """What debootstrap's first stage has put into `root`: its archives, as the index that it read describes them."""
    debs = [path.name.removesuffix(".deb").split("_") for path in (root / "var/cache/apt/archives").glob("*.deb")]
    wanted = [(name, unquote(version), architecture) for name, version, architecture in debs]
    lists = root / "var/lib/apt/lists"
    found = pool.look_up(wanted, [(path, DEBIAN) for path in sorted(lists.glob("*_Packages"))])
    return section("bootstrap", pool.published(sorted(lists.glob("*Release"))), found.values())


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
