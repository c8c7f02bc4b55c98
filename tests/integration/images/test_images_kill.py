"""Builds, publications, rollbacks and clean-ups that are killed at any moment, and full disks: nothing half is left.

KESTRELPI_KILLS: how many kills (make torture: 200). KESTRELPI_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

from .torture import BULKY, EDITED, Torture

KILLS = int(os.environ.get("KESTRELPI_KILLS", "15"))
BUILD_EVERY = 3
"""After so many kills in a row an ordinary build must work."""
FULL_DISKS = max(4, KILLS // 8)
ROOM = 16_000_000
"""Bytes: what a build of the tests takes at most."""


@pytest.fixture
def seed() -> int:
    """Shown when a test fails."""
    chosen = int(os.environ.get("KESTRELPI_SEED", "0")) or secrets.randbelow(10**6) + 1
    print(f"KESTRELPI_SEED={chosen}")
    return chosen


def test_kill_at_random_moments(paths: Paths, seed: int) -> None:
    torture = Torture(paths, paths.root, random.Random(seed))
    torture.learn()
    print({name: round(value, 2) for name, value in torture.seconds.items()})
    killed = tries = 0
    while killed < KILLS:
        tries += 1
        killed += torture.kill_one()
        torture.check()
        if tries % BUILD_EVERY == 0:
            torture.build()
    torture.build()
    torture.examine()
    last = torture.finish("images", "gc", "--keep", "0")
    assert last.returncode == 0, last.stderr
    assert len(Store(paths).generations("default")) == 1


@pytest.fixture
def small_disk(built_root: Path) -> Iterator[tuple[Paths, tuple[str, ...], Path]]:
    """A root on a file system of its own (tmpfs, in a mount namespace of its own), with the built image's layers.

    Yields the root as we see it, the command that enters the namespace, and the root as seen there.
    """
    root = Path(tempfile.mkdtemp(prefix="kestrelpi-small-", dir=built_root.parent))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc"]
    script = f"mount -t tmpfs -o size=8g,mode=755 small {root}; echo ready; exec sleep infinity"
    holder = subprocess.Popen([*command, script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        seen = Paths(Path(f"/proc/{holder.pid}/root{root}"))
        fill(Paths(built_root), seen)
        yield seen, ("nsenter", "--mount", f"--target={holder.pid}", f"--wd={Path.cwd()}"), root
    finally:
        holder.kill()
        holder.wait()
        root.rmdir()


def fill(source: Paths, target: Paths) -> None:
    """Copy the configuration and what the current image's builds use again."""
    current = Store(source).current("default")
    assert current is not None
    target.etc.mkdir(parents=True)
    shutil.copy(source.config, target.config)
    (target.cache / "layers").mkdir(parents=True)
    keys = [source.cache / "layers" / key for key in current.manifest.keys]
    subprocess.run(["cp", "-a", *keys, target.cache / "layers"], check=True)
    others = [path for path in source.cache.iterdir() if path.name not in ("layers", "archives", "lists", "build")]
    subprocess.run(["cp", "-a", *others, target.cache], check=True)


def resize(prefix: tuple[str, ...], root: Path, free: int) -> None:
    """Leave so many bytes free."""
    for _ in range(10):  # what a killed command used is given back a moment later
        command = [*prefix, "df", "--output=used", "--block-size=1", str(root)]
        used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1])
        command = [*prefix, "mount", "-o", f"remount,size={used + free}", str(root)]
        if subprocess.run(command, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("the small disk can't be resized")


def test_a_disk_that_fills_up_at_any_moment(small_disk: tuple[Paths, tuple[str, ...], Path], seed: int) -> None:
    paths, prefix, root = small_disk
    torture = Torture(paths, root, random.Random(seed), prefix)
    torture.learn()
    failed = 0
    for number in range(FULL_DISKS):
        bulk = torture.dice.randrange(ROOM // 2)
        torture.edit("configure", "94-bulk", BULKY, bytes=bulk)
        torture.edit("configure", "95-edited", EDITED)
        most = ROOM if number else bulk  # the first build has too little in any case
        free = int(torture.dice.uniform(0, 1) ** 2 * most)
        resize(prefix, root, free)
        if number % 3 == 2:
            print(number, f"{free} bytes free", flush=True)
            torture.kill_one()
        else:
            done = torture.finish("images", "build", "default")
            print(number, f"{free} bytes free: {done.returncode}", done.stderr.splitlines()[:1], flush=True)
            assert "Traceback" not in done.stderr, done.stderr
            assert done.returncode in (0, 1)
            assert done.returncode == 0 or "full" in done.stderr or "No space left" in done.stderr, done.stderr
            failed += done.returncode
        torture.check()
        if number % BUILD_EVERY == 0:
            cleaned = torture.finish("images", "gc", "--keep", "0")
            assert cleaned.returncode == 0, cleaned.stderr
        resize(prefix, root, 4 * ROOM)
        torture.build()
    torture.examine()
    assert failed > 0
