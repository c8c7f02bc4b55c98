"""How long builds take: from nothing, from downloaded packages, with one edited script, with nothing changed.

Run as root: python benches/build.py [--root DIR] [--suite SUITE]. It builds in a folder of its own, which it removes
(DIR is kept). CPU seconds (user + system, children too) stand beside the seconds that passed: on a busy machine they
tell more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import config
from kestrelpi.cli.table import print_table
from kestrelpi.images.build import build
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

IMAGE = "default"
SCRIPT = "#!/bin/sh\n# needs: KESTRELPI_ROOT\necho {number} >$KESTRELPI_ROOT/etc/bench\n"


@dataclass(frozen=True)
class Timing:
    """One build."""

    what: str
    seconds: float
    cpu: float
    target: str


def measure(what: str, target: str, run: Callable[[], object]) -> Timing:
    """Time `run` with its children."""
    begun, before = time.monotonic(), os.times()
    run()
    after = os.times()
    used = (after.user + after.system + after.children_user + after.children_system) - (
        before.user + before.system + before.children_user + before.children_system
    )
    return Timing(what, time.monotonic() - begun, used, target)


def timings(root: Path, suite: str) -> list[Timing]:
    """All builds, one after the other."""
    paths = Paths(root)
    paths.etc.mkdir(parents=True)
    line = f", suite: {suite}" if suite else ""
    paths.config.write_text(f"images: {{{IMAGE}: {{modules: [openmp]{line}}}}}\n")
    script = paths.etc / "node/configure.d/95-bench"

    def make() -> None:
        build(paths, config.load(paths.config), IMAGE)

    def edit(number: int) -> None:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPT.format(number=number))
        script.chmod(0o755)

    found = [measure("from nothing", "< 300 s", make)]
    shutil.rmtree(paths.cache / "layers")
    shutil.rmtree(paths.images)
    found.append(measure("from nothing, packages downloaded", "", make))
    edit(1)
    found.append(measure("one configure script added", "< 5 s", make))
    edit(2)
    found.append(measure("one configure script edited", "< 5 s", make))
    found.append(measure("nothing changed", "< 1 s", make))
    assert len(Store(paths).generations(IMAGE)) == 3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="build here, and keep it")
    parser.add_argument("--suite", default="", help="Debian release; default: the frontend's own")
    options = parser.parse_args()
    root = options.root or Path(tempfile.mkdtemp(prefix="kestrelpi-bench-", dir="/var/tmp"))
    try:
        found = timings(root, options.suite)
    finally:
        if not options.root:
            shutil.rmtree(root)
    rows = [(one.what, f"{one.seconds:.1f} s", f"{one.cpu:.1f} s", one.target) for one in found]
    print_table(("BUILD", "SECONDS", "CPU SECONDS", "TARGET"), rows)


if __name__ == "__main__":
    main()
