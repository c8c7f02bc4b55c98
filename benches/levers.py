"""What each lever of the builder is worth: the same image from nothing, with one of them off at a time.

Run as root: python benches/levers.py [--modules a,b] [--only NAME,NAME]. It works in a folder of its own, which it
removes. Every build begins with the downloaded packages (but for the lever that is about them) and an empty folder
otherwise. Compare the CPU seconds (user + system, children too): most of what differs is emulation.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from kestrelpi import run
from kestrelpi.cli.table import print_table
from kestrelpi.images import bootstrap, packages, scaffold
from kestrelpi.images.layers import remove_tree
from kestrelpi.paths import Paths

from build import MODULES, Bench, Steps, Timing, measure  # isort: skip

COMPILE = """#!/bin/sh
set -eu
cd /usr/local/share/kestrelpi/fibo
gcc -std=c11 -O2 -fopenmp -s -o /usr/local/bin/fibo fibo.c
gcc -std=c11 -O2 -fopenmp -s -static -o fibo fibo.c
"""
"""What the module openmp does with a cross compiler."""


@dataclass(frozen=True)
class Lever:
    """One thing that makes builds faster, and how to do without it."""

    name: str
    what: str
    without: Callable[[], AbstractContextManager[object]] = nullcontext
    packages: tuple[str, ...] = ()
    script: str = ""
    """A script of the post-install phase."""


def emulated() -> AbstractContextManager[object]:
    return patch.object(scaffold, "can_be_native", lambda: False)


def synced() -> AbstractContextManager[object]:
    """dpkg brings each file to the disk before it goes on."""
    with_sync = bootstrap.DPKG_CONFIG.replace("force-unsafe-io\n", "")
    options = [one for one in packages.DPKG_OPTIONS if one != "--force-unsafe-io"]
    stack = ExitStack()
    stack.enter_context(patch.object(bootstrap, "DPKG_CONFIG", with_sync))
    stack.enter_context(patch.object(packages, "DPKG_OPTIONS", options))
    return stack


def documented() -> AbstractContextManager[object]:
    return patch.multiple(bootstrap, DPKG_CONFIG="force-unsafe-io\n", UNWANTED=())


def triggered() -> AbstractContextManager[object]:
    """Triggers run at the end of each of apt's calls of dpkg."""
    config = packages.apt_config
    return patch.object(packages, "apt_config", lambda *given: config(*given) + 'DPkg::NoTriggers "false";\n')


def with_an_initramfs() -> AbstractContextManager[object]:
    """Nothing stands for Debian's initramfs-tools: the kernel's package brings them, and they make an initramfs."""
    control = packages.STAND_IN_CONTROL.replace("Provides: linux-initramfs-tool\n", "")
    return patch.object(packages, "STAND_IN_CONTROL", control)


LEVERS = (
    Lever("native", "the frontend's dpkg, shell, perl and tools while packages are installed", emulated),
    Lever("fsync", "no fsync by dpkg", synced),
    Lever("documentation", "no documentation", documented),
    Lever("triggers", "triggers deferred to one run at the end", triggered),
    Lever("compiler", "fibo compiled on the frontend", packages=("gcc", "libc6-dev"), script=COMPILE),
    Lever("initramfs", "no initramfs by the kernel's package", with_an_initramfs),
)


@dataclass(frozen=True)
class Room:
    """Where all of these builds work."""

    folder: Path
    modules: str

    @property
    def archives(self) -> Path:
        return self.folder / "cache"

    def build(self, what: str, packages: tuple[str, ...] = (), script: str = "", watch: Steps | None = None) -> Timing:
        """Build from nothing but downloaded packages."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            bench = self.bench(Path(name), self.modules)
            bench.packages.extend(packages)
            if script:
                path = bench.paths.etc / "node/post-install.d/51-lever.chroot"
                path.parent.mkdir(parents=True)
                path.write_text(script)
                path.chmod(0o755)
            bench.configure()
            return bench.build(what, watch=watch)

    def one_by_one(self, base: Timing, whole: Steps) -> Timing:
        """What the build would take if a run of apt and dpkg followed the other, one a module.

        `base`: the build that installs all at once; `whole`: its steps.
        """
        seen = Steps()
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            bench = self.bench(Path(name), "")
            names = self.modules.split(",")
            for number in range(len(names)):
                bench.modules = ",".join(names[: number + 1])
                bench.configure()
                bench.build(f"packages of {names[number]}", watch=seen)
        seconds, cpu = seen.packages - whole.packages, seen.packages_cpu - whole.packages_cpu
        return Timing("", base.seconds + seconds, base.cpu + cpu)

    def bench(self, root: Path, modules: str) -> Bench:
        return Bench(Paths(root), modules, "", archives=self.archives)

    def unpack(self, jobs: int) -> Timing:
        """Decompress all archives, so many at a time: most of what unpacking takes."""
        with ThreadPoolExecutor(jobs) as pool:
            return measure(f"{jobs} at a time", lambda: [*pool.map(decompress, sorted(self.archives.rglob("*.deb")))])


def decompress(archive: Path) -> None:
    run.run(["sh", "-euc", 'dpkg-deb --fsys-tarfile "$1" >/dev/null', "sh", archive])


def rows(room: Room, only: list[str]) -> Iterator[tuple[str, ...]]:
    """Each as it is known: the lever, seconds and CPU seconds without it, and both to those of the build as it is."""
    cold = room.build("packages downloaded")
    whole = Steps()
    base = room.build("as it is", watch=whole)
    yield "none: the build as it is", f"{base.seconds:.0f} s", f"{base.cpu:.0f} s", "", ""

    def row(what: str, without: Timing) -> tuple[str, ...]:
        seconds, cpu = without.seconds / base.seconds, without.cpu / base.cpu
        return what, f"{without.seconds:.0f} s", f"{without.cpu:.0f} s", f"{seconds:.2f} ×", f"{cpu:.2f} ×"

    yield row("downloaded packages kept, for all images", cold)
    for lever in LEVERS:
        if not only or lever.name in only:
            with lever.without():
                yield row(lever.what, room.build(lever.name, lever.packages, lever.script))
    if not only or "run" in only:
        yield row("one run of dpkg for all modules", room.one_by_one(base, whole))
    serial, parallel = room.unpack(1), room.unpack(os.cpu_count() or 1)
    saved = f"{serial.seconds - parallel.seconds:.1f} s less with {os.cpu_count()} at a time"
    yield "not used: archives decompressed in parallel", f"{serial.seconds:.1f} s", f"{serial.cpu:.1f} s", saved, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default=MODULES, help="of the image; default: %(default)s")
    parser.add_argument("--only", default="", help=f"some of {','.join(one.name for one in LEVERS)},run")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kestrelpi-levers-", dir="/var/tmp"))
    only = [one for one in options.only.split(",") if one]
    show = partial(print_table, ("LEVER", "WITHOUT IT", "CPU", "TO THE BUILD AS IT IS", "CPU TO IT"))
    try:
        for row in rows(Room(folder, options.modules), only):  # each at once: emulation may take half an hour
            show([row])
    finally:
        remove_tree(folder)


if __name__ == "__main__":
    main()
