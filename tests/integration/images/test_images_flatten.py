"""Flattening against the kernel's own overlay driver: both must show the same tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kestrelpi.images.flatten import flatten
from kestrelpi.sandbox import Sandbox, view


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layers, the topmost first, with every kind of thing that a layer can hold."""
    bottom, middle, top = (tmp_path / name for name in ("bottom", "middle", "top"))
    for folder in (bottom / "etc/conf.d", bottom / "opaque/deep", bottom / "turns", bottom / "stays/sub"):
        folder.mkdir(parents=True)
    for name in (
        "etc/keep",
        "etc/gone",
        "etc/conf.d/a",
        "opaque/deep/hidden",
        "turns/inside",
        "stays/sub/x",
        "was-file",
    ):
        (bottom / name).write_text(f"bottom {name}")
    (bottom / "link").symlink_to("etc/keep")
    os.mknod(bottom / "device", 0o20640, os.makedev(1, 3))
    (bottom / "capable").write_text("x")
    # a version 2 file capability (linux/capability.h): cap_net_raw, permitted and effective
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(bottom / "capable", "security.capability", capability)
    (middle / "etc").mkdir(parents=True)
    os.mknod(middle / "etc/gone", 0o20000, 0)
    (middle / "opaque").mkdir()
    os.setxattr(middle / "opaque", "trusted.overlay.opaque", b"y")
    (middle / "opaque/new").write_text("middle")
    os.mknod(middle / "stays", 0o20000, 0)
    top.mkdir()
    (top / "turns").write_text("a file now")
    (top / "was-file").mkdir(mode=0o750)
    (top / "was-file/inside").write_text("top")
    (top / "stays").mkdir()
    os.setxattr(top / "stays", "trusted.overlay.opaque", b"y")
    (top / "etc").mkdir(mode=0o711)
    os.chown(top / "etc", 7, 8)
    (top / "etc/gone").write_text("again")
    return [top, middle, bottom]


LISTING = (
    r"find . -printf '%p %y %m %U %G %s %l\n' | grep -v ' d ' | sort; find . -type d -printf '%p %m %U %G\n' | sort"
)


def test_the_kernel_shows_the_same(layers: list[Path], tmp_path: Path) -> None:
    count = flatten(layers, tmp_path / "flat")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    box = Sandbox().plus(view(layers, mounted), ["cd", mounted])
    kernel = subprocess.run(box.argv(["sh", "-c", LISTING]), check=True, capture_output=True, text=True).stdout
    ours = subprocess.run(
        ["sh", "-c", LISTING], cwd=tmp_path / "flat", check=True, capture_output=True, text=True
    ).stdout
    assert ours == kernel
    assert "./etc/gone" in ours
    assert "hidden" not in ours
    assert count == 9


def test_files_are_links_and_keep_capabilities(layers: list[Path], tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flatten(layers, flat)
    assert (flat / "capable").stat().st_ino == (layers[2] / "capable").stat().st_ino
    assert os.getxattr(flat / "capable", "security.capability")[0] == 1
    assert (flat / "device").stat().st_rdev == os.makedev(1, 3)
    assert [name for name in os.listxattr(flat / "stays") if name.startswith("trusted.overlay")] == []
