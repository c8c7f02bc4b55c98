"""A root of its own for each test, that starts with the layers of the built image."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kestrelpi.paths import Paths

from . import support


@pytest.fixture
def paths(built_root: Path) -> Iterator[Paths]:
    """A warm root for one test."""
    with warm_root(built_root) as paths:
        yield paths


@contextmanager
def warm_root(built_root: Path) -> Iterator[Paths]:
    """Layers and archives are hard links of the built root's: a build here starts warm."""
    root = Path(tempfile.mkdtemp(prefix="kestrelpi-images-", dir=built_root.parent))
    paths, source = Paths(root), Paths(built_root)
    paths.cache.mkdir(parents=True)
    for name in ("layers", "archives", "lists", "packed", "squashfs"):
        if (source.cache / name).is_dir():
            subprocess.run(["cp", "-al", source.cache / name, paths.cache / name], check=True)
    paths.etc.mkdir(parents=True)
    shutil.copy(source.config, paths.config)
    try:
        yield paths
    finally:
        assert support.mounts_below(root) == []
        shutil.rmtree(root)


@pytest.fixture
def script(paths: Paths) -> Callable[[str, str], Path]:
    """Write a user's script: name below /etc/kestrelpi/node, text."""

    def write(name: str, text: str) -> Path:
        path = paths.etc / "node" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write
