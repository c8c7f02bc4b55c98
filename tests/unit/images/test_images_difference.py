"""What one tree has that another doesn't."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kestrelpi.images.difference import difference
from kestrelpi.images.flatten import flatten


def write(tree: Path, name: str, text: str = "text", mtime: int = 1000) -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (mtime, mtime))
    return path


def quiet(tree: Path) -> None:
    """Give all folders one time."""
    for parent, _, _ in os.walk(tree, topdown=False):
        os.utime(parent, (1, 1))


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two trees with the same files, one as a hard link, the others as copies."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    write(lower, "usr/bin/linked")
    flatten([lower], upper)
    for tree in (lower, upper):
        write(tree, "etc/copied")
        (tree / "etc/link").symlink_to("copied")
        os.utime(tree / "etc/link", (1, 1), follow_symlinks=False)
        quiet(tree)
    return lower, upper


def listing(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def test_trees_that_are_the_same_differ_in_nothing(trees: tuple[Path, Path], tmp_path: Path) -> None:
    assert difference(*trees, tmp_path / "out") == 0
    assert listing(tmp_path / "out") == set()


def test_only_what_differs_is_in_it_with_the_folders_above(trees: tuple[Path, Path], tmp_path: Path) -> None:
    lower, upper = trees
    for name in ("etc/link", "usr/bin/linked"):
        (upper / name).unlink()
    (upper / "etc/link").symlink_to("elsewhere")
    write(upper, "usr/bin/linked", "longer text")
    write(upper, "usr/share/new/file", "1234")
    (upper / "usr").chmod(0o711)
    out = tmp_path / "out"
    assert difference(lower, upper, out) == len("longer text") + len("1234") + len("elsewhere")
    assert listing(out) == {
        *("etc", "etc/link", "usr", "usr/bin", "usr/bin/linked", "usr/share", "usr/share/new", "usr/share/new/file")
    }
    assert (out / "usr/bin/linked").samefile(upper / "usr/bin/linked")
    assert stat.S_IMODE((out / "usr").stat().st_mode) == 0o711


@pytest.mark.parametrize("change", ["content", "mode", "mtime"])
def test_a_file_differs_by_its_bytes_and_by_what_is_said_of_it(
    trees: tuple[Path, Path], tmp_path: Path, change: str
) -> None:
    lower, upper = trees
    path = write(upper, "etc/copied", "TEXT" if change == "content" else "text", 1001 if change == "mtime" else 1000)
    if change == "mode":
        path.chmod(0o600)
    difference(lower, upper, tmp_path / "out")
    assert listing(tmp_path / "out") == {"etc", "etc/copied"}


def test_what_is_gone_is_a_whiteout(trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower, upper = trees
    (upper / "etc/copied").unlink()
    quiet(upper)
    made: list[tuple[str, int, int]] = []  # device files take root
    monkeypatch.setattr("os.mknod", lambda path, mode, device: made.append((path, mode, device)))
    difference(lower, upper, tmp_path / "out")
    assert made == [(f"{tmp_path}/out/etc/copied", stat.S_IFCHR, 0)]


def test_a_folder_takes_the_place_of_a_file(trees: tuple[Path, Path], tmp_path: Path) -> None:
    lower, upper = trees
    (upper / "etc/copied").unlink()
    write(upper, "etc/copied/inside")
    difference(lower, upper, tmp_path / "out")
    assert listing(tmp_path / "out") == {"etc", "etc/copied", "etc/copied/inside"}
