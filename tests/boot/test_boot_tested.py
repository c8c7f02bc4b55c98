"""`publish: tested`: what boots on an emulated Pi becomes current, and what doesn't is refused with the reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kestrelpi import config
from kestrelpi.images.build import build
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths
from tests.integration.images.conftest import warm_root
from tests.program import program

CONFIG = """\
cluster: test
network: {address: 10.96.0.1/24}
services: {nfs: {backend: ganesha}}
images:
  default:
    modules: [munge, openmp]
"""
TESTED = """\
    publish: tested
groups: {rpi: {image: default, cmdline: panic=1}}
"""
"""A kernel that panics resets the Pi after a second, not half a minute."""


@pytest.fixture(scope="module")
def paths(built_root: Path) -> Iterator[Paths]:
    """A root of its own with a light image, whose current generation was not tested; each one that follows is."""
    with warm_root(built_root) as paths:
        paths.root.chmod(0o755)  # munge is a user of its own
        paths.config.write_text(CONFIG)
        build(paths, config.load(paths.config), "default")
        paths.config.write_text(CONFIG + TESTED)
        yield paths


def kestrelpi(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    argv = program(paths.root, "--json", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)


def generations(paths: Paths) -> list[dict[str, Any]]:
    """`images list`, the oldest first."""
    rows: list[dict[str, Any]] = json.loads(kestrelpi(paths, "images", "list", "default").stdout)
    return rows


def test_what_does_not_boot_is_refused_and_what_was_current_stays(paths: Paths) -> None:
    before = Store(paths).current("default")
    broken = paths.etc / "overlays/initramfs/init"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/busybox sh\necho it is broken\nexit 1\n")
    broken.chmod(0o755)
    done = kestrelpi(paths, "images", "build", "default")
    broken.unlink()
    assert done.returncode == 1, done.stderr
    assert "is not published: it failed boot" in done.stderr
    assert "Pi 1 was reset while it booted" in done.stderr
    assert "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100" in done.stderr
    assert Store(paths).current("default") == before
    [first, second] = generations(paths)
    assert (first["current"], second["current"], second["tested"]) == (True, False, "failed")
    log = paths.log / "images/default" / f"test-{second['id']}"
    assert str(log) in done.stderr
    assert "it is broken" in (log / "console.log").read_text(errors="replace")
    assert "start4.elf" in (log / "console.log").read_text(errors="replace")


def test_what_boots_and_passes_its_checks_becomes_current(paths: Paths) -> None:
    """With a package more, whose files lie over those of the base on the booted node."""
    text = paths.config.read_text()
    paths.config.write_text(text.replace("  default:\n", "  default:\n    packages: [hello]\n"))
    done = kestrelpi(paths, "images", "build", "default")
    assert done.returncode == 0, done.stderr
    current = Store(paths).current("default")
    assert current is not None
    assert json.loads(done.stdout)["id"] == current.id == generations(paths)[-1]["id"]
    test = json.loads((current.folder / "test.json").read_text())
    checks = {one["name"]: one["ok"] for one in test["checks"]}
    assert {"boot", "units", "munge"} <= set(checks)
    assert all(checks.values()), test["checks"]
    assert list(test["stages"])[-1] == "ready"
    assert (current.folder / "squashfs/15-more.squashfs").is_file()
    assert not (paths.cache / "trial").exists()
