"""What tests of several folders share: one really built image."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.images.build import build
from kestrelpi.paths import Paths
from tests import host_state

CONFIG = """# the tests' cluster
cluster: test
network: {address: 10.96.0.1/24}
services: {nfs: {backend: ganesha}}
images:
  default:
    modules: [openmp, openmpi, slurm, swarm, environment-modules]
groups: {rpi: {image: default}}
"""


@pytest.fixture(scope="session")
def host_changes() -> list[str]:
    """What the build of the shared root changed on this machine; `built_root` notes it here."""
    return []


@pytest.fixture(scope="session")
def built_root(host_changes: list[str]) -> Iterator[Path]:
    """A root with the default image built from nothing, once for all tests (minutes); they must leave it as it is.

    KESTRELPI_TEST_ROOT names a root to use again while developing: only what changed is built there.
    """
    named = os.environ.get("KESTRELPI_TEST_ROOT")
    # not below pytest's own temporary folder: that keeps the last three runs, gigabytes each
    root = Path(named) if named else Path(tempfile.mkdtemp(prefix="kestrelpi-test-", dir="/var/tmp"))
    root.chmod(0o755)  # munge and slurm are users of their own
    paths = Paths(root)
    paths.etc.mkdir(parents=True, exist_ok=True)
    if not paths.config.exists():
        paths.config.write_text(CONFIG)
    try:
        before = host_state.snapshot()
        build(paths, config.load(paths.config), "default")
        host_changes += host_state.changes(before, host_state.snapshot())
        yield root
    finally:
        if not named:
            shutil.rmtree(root)
