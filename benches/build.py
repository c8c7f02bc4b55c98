"""How long builds take and how much disk they do, beside other ways to make the same root, all in one run.

Run as root: python benches/build.py [--root DIR] [--suite SUITE] [--modules a,b] [--compare mmdebstrap,naive]
[--again]. It works in a folder of its own, which it removes (DIR is kept). CPU seconds
(user + system, children too) stand beside the seconds that passed: on a busy machine they tell more. All fetch their
packages from the same mirror. The naive recipe takes half an hour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi import config
from kestrelpi.cli.table import print_table
from kestrelpi.images.build import build
from kestrelpi.images.chain import Step
from kestrelpi.images.layers import remove_tree
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.plan import plan
from kestrelpi.images.store import Generation, Store
from kestrelpi.images.watcher import Silent
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import edit
from kestrelpi.paths import Paths

from other_builders import mmdebstrap, naive  # isort: skip

IMAGE, SECOND = "default", "second"
MODULES = "openmp,openmpi,slurm,swarm"
PACKAGE = "htop"
SCRIPT = "#!/bin/sh\n# needs: KESTRELPI_ROOT\necho {number} >$KESTRELPI_ROOT/etc/bench\n"
GENERATIONS = 10
OTHERS = {"mmdebstrap": (mmdebstrap, 0.8), "naive": (naive, 0.15)}
"""Name → how it is made, and what part of its time ours may take."""


@dataclass(frozen=True)
class Timing:
    """One measured thing."""

    what: str
    seconds: float
    cpu: float
    target: str = ""
    ran: str = ""
    """Which steps of a build."""

    @property
    def row(self) -> tuple[str, ...]:
        return (self.what, f"{self.seconds:.2f} s", f"{self.cpu:.2f} s", self.target, self.ran)


class Steps(Silent):
    """Remembers what a build ran, and what its packages phase took."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.packages = self.packages_cpu = 0.0
        self._begun = spent()

    def start(self, step: Step) -> None:
        self._begun = spent()

    def done(self, record: StepRecord) -> None:
        self.records.append(record)
        if record.phase == "packages":
            self.packages += record.seconds
            self.packages_cpu += spent() - self._begun

    @property
    def ran(self) -> str:
        names = [one.name for one in self.records if not one.cached]
        return " ".join(names) if len(names) < 6 else f"{len(names)} steps"


@dataclass
class Bench:
    """One root, and the builds in it."""

    paths: Paths
    modules: str
    suite: str
    packages: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=lambda: [IMAGE])
    edits: int = 0
    archives: Path | None = None
    """Where downloaded packages are kept; None: below `paths`."""

    def configure(self) -> None:
        suite = f", suite: {self.suite}" if self.suite else ""
        entry = f"{{modules: [{self.modules}], packages: [{', '.join(self.packages)}]{suite}}}"
        images = "".join(f"  {name}: {entry}\n" for name in self.images)
        self.paths.etc.mkdir(parents=True, exist_ok=True)
        kept = f"build: {{cache: {self.archives}}}\n" if self.archives else ""
        self.paths.config.write_text(f"network: {{address: 10.77.0.1/24}}\nimages:\n{images}{kept}")

    def build(self, what: str, target: str = "", image: str = IMAGE, watch: Steps | None = None) -> Timing:
        """Build and time it, as the command would."""
        seen = watch or Steps()
        timing = measure(what, lambda: build(self.paths, config.load(self.paths.config), image, watch=seen))
        found = Timing(timing.what, timing.seconds, timing.cpu, target, seen.ran)
        print(*found.row, sep="  ", file=sys.stderr)
        return found

    def current(self, image: str) -> Generation:
        found = Store(self.paths).current(image)
        assert found is not None
        return found

    def edit(self, folder: str = "node/configure.d", name: str = "95-bench") -> None:
        """Write a script or an overlay's file that no build has seen."""
        self.edits += 1
        path = self.paths.etc / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPT.format(number=self.edits))
        path.chmod(0o755)

    def register(self) -> None:
        """What `nodes register` writes."""
        with edit(self.paths, config.load(self.paths.config)) as change:
            node = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.11"))
            change.registry = change.registry.with_node(node)


def measure(what: str, run: Callable[[], object]) -> Timing:
    """Time `run` with its children."""
    begun, before = time.monotonic(), spent()
    run()
    return Timing(what, time.monotonic() - begun, spent() - before)


def spent() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def disk(*folders: Path) -> int:
    """Bytes on disk, a hard link counted once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for parent, names, files in os.walk(folder):
            for name in (*names, *files):
                status = os.lstat(f"{parent}/{name}")
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def from_nothing(bench: Bench, again: bool) -> Iterator[Timing]:
    """Builds that begin with an empty folder."""
    bench.configure()
    yield bench.build("from nothing")
    if again:
        shutil.rmtree(bench.paths.cache / "layers")
        shutil.rmtree(bench.paths.images)
        yield bench.build("from nothing, packages downloaded")
    bench.packages.append(PACKAGE)
    bench.configure()
    yield bench.build(f"one package added ({PACKAGE})", "< 40 s")


def rebuilds(bench: Bench) -> Iterator[Timing]:
    """What is built again after changes."""
    bench.edit()
    yield bench.build("one configure script added", "< 3 s")
    bench.edit()
    yield bench.build("one configure script edited", "< 3 s")
    bench.edit("overlays/node/etc", "bench-file")
    yield bench.build("one overlay file added", "< 3 s")
    bench.edit("overlays/node/etc", "bench-file")
    yield bench.build("one overlay file edited", "< 3 s")
    yield bench.build("nothing changed", "< 1 s")
    bench.register()
    yield bench.build("a node registered", "no build")


def disk_rows(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """Disk of one generation, of ten, and of a second image."""
    images, cache = bench.paths.images, bench.paths.cache
    kept = (images, cache / "layers", cache / "squashfs", cache / "packed")
    for generation in Store(bench.paths).generations(IMAGE)[:-1]:
        Store(bench.paths).remove(generation)
    one = disk(*kept)
    while len(Store(bench.paths).generations(IMAGE)) < GENERATIONS:
        bench.edit()
        bench.build("")
    ten = disk(*kept)
    yield "one generation, with its layers", f"{one / 1e6:.0f} MB", ""
    yield (
        f"{GENERATIONS} generations, a script edited between them",
        f"{ten / 1e6:.0f} MB: {ten / one:.2f} ×",
        "< 1.3 ×",
    )
    bench.images.append(SECOND)
    bench.configure()
    bench.edit(f"images/{SECOND}/configure.d")
    bench.build("", image=SECOND)
    first, second = (found.manifest.keys for found in (bench.current(IMAGE), bench.current(SECOND)))
    shared = len({*first} & {*second})
    more = f"+{(disk(*kept) - ten) / 1e6:.0f} MB, {shared} of {len(second)} layers shared"
    yield "a second image with a script of its own", more, ""


def compare(bench: Bench, names: list[str], ours: Timing) -> Iterator[tuple[str, ...]]:
    """Other ways to the same root, and what part of their time ours takes."""
    found = plan(bench.paths, config.load(bench.paths.config), IMAGE)
    packages = [*found.wanted.names, "raspi-firmware"]
    for name in names:
        make, most = OTHERS[name]
        folder = Path(tempfile.mkdtemp(prefix=f"kestrelpi-{name}-", dir="/var/tmp"))
        try:
            theirs = measure(name, lambda make=make, folder=folder: make(folder, found.mirror, packages))
        finally:
            remove_tree(folder)
        ratio = f"{ours.seconds / theirs.seconds:.2f} × ({ours.cpu / theirs.cpu:.2f} × of CPU)"
        yield name, f"{theirs.seconds:.1f} s", f"{theirs.cpu:.1f} s", ratio, f"< {most} ×"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="build here, and keep it")
    parser.add_argument("--suite", default="", help="Debian release; default: the frontend's own")
    parser.add_argument("--modules", default=MODULES, help="of the image; default: %(default)s")
    parser.add_argument("--compare", default=",".join(OTHERS), help="other ways, or nothing; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="build from nothing a second time, without downloads")
    options = parser.parse_args()
    names = [name for name in options.compare.split(",") if name]
    root = options.root or Path(tempfile.mkdtemp(prefix="kestrelpi-bench-", dir="/var/tmp"))
    bench = Bench(Paths(root), options.modules, options.suite)
    try:
        timings = [*from_nothing(bench, options.again), *rebuilds(bench)]
        print_table(("BUILD", "SECONDS", "CPU", "TARGET", "RAN"), [one.row for one in timings])
        print_table(("DISK", "", "TARGET"), list(disk_rows(bench)))
        if names:
            for row in compare(bench, names, timings[0]):  # each at once: the next may take an hour
                print_table(("OTHER WAY", "SECONDS", "CPU", "OURS TAKES", "TARGET"), [row])
    finally:
        if not options.root:
            remove_tree(root)


if __name__ == "__main__":
    main()
