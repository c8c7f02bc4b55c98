"""What generations and images take of the disk: they share what they have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kestrelpi import config
from kestrelpi.images.build import build
from kestrelpi.images.layers import remove_tree
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

from . import support

SCRIPT = "#!/bin/sh\n# needs: KESTRELPI_ROOT\necho {number} >$KESTRELPI_ROOT/etc/edited\n"
TEN = 10
MOST = 1.3
"""Ten generations may take so many times the disk of one."""


def disk(paths: Paths) -> int:
    """Bytes of all images with what their builds keep, a hard link counted once."""
    seen: dict[int, int] = {}
    for top in (paths.images, *(paths.cache / name for name in ("layers", "packed", "squashfs"))):
        for parent, folders, files in os.walk(top):
            for name in (*folders, *files):
                status = (Path(parent) / name).lstat()
                seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def test_ten_generations_take_little_more_than_one(paths: Paths, script: Callable[[str, str], Path]) -> None:
    first, _ = support.make(paths)
    for key in {path.name for path in (paths.cache / "layers").iterdir()} - {*first.manifest.keys}:
        remove_tree(paths.cache / "layers" / key)
    one = disk(paths)
    for number in (1, 2):
        script("configure.d/95-edited", SCRIPT.format(number=number))
        support.make(paths)
    another = (disk(paths) - one) / 2
    assert another > 0
    assert one + (TEN - 1) * another < MOST * one
    kernels = {(one.boot / "vmlinuz").stat().st_ino for one in Store(paths).generations("default")}
    assert len(kernels) == 1


def test_images_with_the_same_first_steps_share_their_layers(paths: Paths, script: Callable[[str, str], Path]) -> None:
    first, _ = support.make(paths)
    text = paths.config.read_text()
    default = text[text.index("  default:") : text.index("groups:")]
    paths.config.write_text(text.replace("groups:", f"{default.replace('default:', 'other:')}groups:"))
    own = paths.etc / "images/other/configure.d/95-own"
    own.parent.mkdir(parents=True)
    own.write_text(SCRIPT.format(number=1))
    own.chmod(0o755)
    before = disk(paths)
    seen = support.Recorder()
    second = build(paths, config.load(paths.config), "other", watch=seen)
    assert seen.ran == ["95-own", "boot files"]
    assert second.manifest.keys[:-1] == first.manifest.keys
    assert disk(paths) < 1.1 * before
