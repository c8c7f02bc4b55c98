"""The tree hash sees everything that counts, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kestrelpi.images import tree

MOMENT = 1_700_000_000


def make(folder: Path) -> Path:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/hostname").write_text("localhost\n")
    (folder / "etc/link").symlink_to("hostname")
    (folder / "var").mkdir()
    tree.clamp(folder, MOMENT)
    return folder


def test_equal_trees_in_two_places_have_one_hash(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "a/b/two")
    assert tree.tree_hash(one) == tree.tree_hash(two)
    (two / "etc/hostname").read_text()
    os.utime(two / "etc/hostname", (1, MOMENT))
    assert tree.tree_hash(one) == tree.tree_hash(two), "an access time doesn't count"


def _touch(root: Path) -> None:
    os.utime(root / "var", (MOMENT - 1, MOMENT - 1))


def _retarget(root: Path) -> None:
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("hosts")


def _rename(root: Path) -> None:
    (root / "etc/hostname").rename(root / "etc/hostnamf")


CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "etc/hostname").write_text("localhosT\n"),
    lambda root: (root / "etc/hostname").chmod(0o600),
    lambda root: (root / "var").chmod(0o700),
    lambda root: os.setxattr(root / "etc/hostname", "user.x", b"1"),
    lambda root: (root / "var/new").mkdir(),
    _touch,
    _retarget,
    _rename,
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_the_hash(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = make(tmp_path / "root")
    before = tree.tree_hash(root)
    change(root)
    tree.clamp(root, MOMENT)
    assert tree.tree_hash(root) != before


def test_clamping_leaves_older_times(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    os.utime(root / "etc/hostname", (5, 5))
    tree.clamp(root, MOMENT)
    assert (root / "etc/hostname").stat().st_mtime == 5
    assert (root / "etc/link").lstat().st_mtime == MOMENT
    assert (root / "var").stat().st_mtime == MOMENT


def test_known_digests_stand_for_the_bytes(tmp_path: Path) -> None:
    root = make(tmp_path / "root")
    assert tree.read_digests(tmp_path) == {}
    tree.write_digests(root, tmp_path)
    known = tree.read_digests(tmp_path)
    assert set(known) == {"etc/hostname"}
    assert tree.tree_hash(root, known) == tree.tree_hash(root)
    wrong = {"etc/hostname": "0" * 64}
    assert tree.tree_hash(root, wrong) == tree.tree_hash(root), "a file with one name is in no layer"
    (tmp_path / "layer").hardlink_to(root / "etc/hostname")
    assert tree.tree_hash(root, known) == tree.tree_hash(root)
    assert tree.tree_hash(root, wrong) != tree.tree_hash(root)
