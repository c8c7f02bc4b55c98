"""The packages phase: all lists are installed in one run of the frontend's apt, which unpacks natively."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images.mirror import Mirror, preferences

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+(/[a-z0-9-]+)?")
"""A Debian package (policy section 5.6.1), and the suite it is taken from (`linux-image-arm64/trixie-backports`)."""
STAND_IN = "kestrelpi-initramfs"
STAND_IN_CONTROL = f"""Package: {STAND_IN}
Version: 1
Architecture: all
Maintainer: kestrelpi <root@localhost>
Provides: linux-initramfs-tool
Description: stands for the initramfs that kestrelpi makes on the frontend
 Debian's kernels depend on a program that makes an initramfs on the machine itself.
"""


@dataclass(frozen=True)
class Wanted:
    """What package lists ask for."""

    names: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] | None = None
    """Packages of which only some folders are unpacked, without scripts and dependencies."""

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites that single packages are taken from: `linux-image-arm64/trixie-backports`."""
        return tuple(sorted({name.partition("/")[2] for name in self.names} - {""}))

    @property
    def fields(self) -> dict[str, str]:
        parts = {f"files of {name}": " ".join(folders) for name, folders in sorted((self.parts or {}).items())}
        return {f"package {name}": "wanted" for name in self.names} | parts

    @property
    def words(self) -> tuple[str, ...]:
        """What is wanted, as a lock file says it."""
        parts = (f"{name}:{','.join(folders)}" for name, folders in sorted((self.parts or {}).items()))
        return (*self.names, *parts)


@dataclass(frozen=True)
class Job:
    """What one packages step installs."""

    wanted: Wanted
    files: tuple[Path, ...] = ()
    """Package files."""
    over: bool = False
    """Whether packages lie below that stay as they are; else it is Debian's base system, which is upgraded too."""

    @property
    def command(self) -> tuple[str, ...]:
        """What apt-get is told."""
        return ("install", "--no-remove") if self.over else ("dist-upgrade",)


def read_lists(lists: Iterable[tuple[Path, str]], more: Sequence[str] = ()) -> Wanted:
    """Merge lists, given as path and text.

    A line is `name`, or `name: folder …` for only these folders of a package; `#` starts a comment. `-name` takes a
    package out that another list asks for; images.<name>.packages has the last word.
    """
    names: set[str] = set()
    unwanted: set[str] = set()
    parts: dict[str, tuple[str, ...]] = {}
    for path, content in lists:
        for number, line in enumerate(content.splitlines(), 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            name, colon, folders = text.partition(":")
            check_name(name.strip().removeprefix("-"), f"{path}:{number}")
            if name.startswith("-"):
                unwanted.add(name.strip()[1:])
            elif colon:
                parts[name.strip()] = tuple(folder.strip("/") for folder in folders.split())
            else:
                names.add(name.strip())
    names = {name for name in names if name.partition("/")[0] not in unwanted}
    for name in more:
        check_name(name, "images.<name>.packages")
        names.add(name)
    return Wanted(tuple(sorted(names)), parts)


def other_suites(wanted: Wanted, mirror: Mirror, scratch: Path, root: Path) -> list[list[str]]:
    """Commands that tell the apt of `root` of the suites that single packages come from, and to take no more there."""
    if not wanted.suites:
        return []
    files = {
        "sources.list.d/kestrelpi-suites.sources": mirror.more_sources(wanted.suites),
        "preferences.d/kestrelpi-suites": preferences(wanted.suites),
    }
    commands = []
    for name, text in files.items():
        source, target = scratch / name.partition(".")[0], root / "etc/apt" / name
        source.write_text(text)
        commands += [["mkdir", "-p", str(target.parent)], ["cp", str(source), str(target)]]
    return commands


def check_list_name(name: str, path: Path) -> None:
    """Raise UserError when a file of packages.d can't be a list."""
    if "/" in name or name.startswith("."):
        raise UserError("this is no package list", where=str(path), fix="lists lie directly in packages.d")


def check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a Debian package", where=where, fix="one package a line")


def frontend_acquire() -> list[str]:
    """How the frontend's apt reaches its mirror (proxies, time-outs, clocks): its Acquire options, for ours."""
    dump = run.run(["apt-config", "dump", "Acquire"]).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::Queue-Mode")
    return [line for line in dump.splitlines() if line.startswith(wanted)]


def apt_config(root: Path, acquire: Iterable[str], path: str) -> str:
    """The configuration (apt.conf(5)) with which the frontend's apt manages the arm64 root at `root`.

    The root's own apt.conf.d is left out: with it debconf looks through all packages for questions that nobody is there
    to answer, a minute of emulation.
    """
    options = {
        "APT::Architecture": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Install-Suggests": "false",
        "APT::Sandbox::User": "root",
        "APT::Get::Assume-Yes": "true",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Keep-Downloaded-Packages": "true",
        "APT::Color": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Dir": f"{root}/",
        "Dir::Etc::parts": "/dev/null",
        "Dir::State::status": f"{root}/var/lib/dpkg/status",
        "Dir::Bin::dpkg": "dpkg",  # the first in the PATH below: the scaffold's, if it has one
        "Dir::Bin::methods": "/usr/lib/apt/methods",
        "Dir::Bin::solvers::": "/usr/lib/apt/solvers",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log::Terminal": "/dev/null",
        "DPkg::Chroot-Directory": str(root),
        "DPkg::Path": path,
        "Dpkg::Use-Pty": "false",
        "Dpkg::Progress-Fancy": "false",
    }
    lines = [f'{name} "{value}";' for name, value in options.items()]
    lines += ['APT::Architectures { "arm64"; };']
    lines += [f'DPkg::Options:: "{option}";' for option in DPKG_OPTIONS]
    return "\n".join([*lines, *acquire]) + "\n"


DPKG_OPTIONS = ("--force-unsafe-io", "--force-confold", "--force-confdef")
"""An overlay file may be there before its package: the file that we put there stays."""


def make_stand_in(folder: Path) -> Path:
    """Build the empty package that takes initramfs-tools' place; returns the .deb."""
    tree = folder / STAND_IN
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (tree / "DEBIAN/control").write_text(STAND_IN_CONTROL)
    deb = folder / f"{STAND_IN}.deb"
    run.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb])
    return deb
