"""The difference between staged files and those in place, and carrying it out."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.frontend import changes
from kestrelpi.frontend.changes import Content, FileChange, carry_out, compare, read_tree


def put(root: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def apply(staged: dict[str, Content], ours: dict[str, str], root: Path) -> list[tuple[str, str]]:
    found = list(compare(staged, ours, root))
    for change in found:
        carry_out(change)
    return [(change.kind, change.name) for change in found]


def test_stage_is_read_with_modes_and_links(tmp_path: Path) -> None:
    put(tmp_path, "etc/b", "b\n")
    put(tmp_path, "etc/a", "a\n", 0o755)
    (tmp_path / "etc/link").symlink_to("../b")
    (tmp_path / "etc/folder").symlink_to("/usr")
    assert read_tree(tmp_path) == {
        "/etc/a": Content(b"a\n", 0o755),
        "/etc/b": Content(b"b\n"),
        "/etc/folder": Content(mode=0o777, link="/usr"),
        "/etc/link": Content(mode=0o777, link="../b"),
    }
    assert list(read_tree(tmp_path)) == ["/etc/a", "/etc/b", "/etc/folder", "/etc/link"]


def test_make_replace_and_nothing_the_second_time(tmp_path: Path) -> None:
    put(tmp_path, "etc/old", "old\n")
    put(tmp_path, "etc/same", "same\n")
    staged = {
        "/etc/link": Content(mode=0o777, link="old"),
        "/etc/new": Content(b"new\n", 0o600),
        "/etc/old": Content(b"newer\n"),
        "/etc/same": Content(b"same\n"),
    }
    assert apply(staged, {}, tmp_path) == [("make", "/etc/link"), ("make", "/etc/new"), ("replace", "/etc/old")]
    assert (tmp_path / "etc/new").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/link").read_text() == "newer\n"
    assert apply(staged, {}, tmp_path) == []
    assert len(list(compare(staged, {}, tmp_path, force=True))) == 4


def test_mode_and_link_changes_count(tmp_path: Path) -> None:
    put(tmp_path, "a", "a\n")
    (tmp_path / "b").symlink_to("x")
    staged = {"/a": Content(b"a\n", 0o755), "/b": Content(mode=0o777, link="y")}
    assert apply(staged, {}, tmp_path) == [("replace", "/a"), ("replace", "/b")]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "b").readlink() == Path("y")


def test_only_our_own_unchanged_files_are_removed(tmp_path: Path) -> None:
    for name in ("ours", "edited", "theirs"):
        put(tmp_path, name, f"{name}\n")
    ours = {"/ours": Content(b"ours\n").sha256, "/edited": Content(b"before\n").sha256, "/gone": "0"}
    assert apply({}, ours, tmp_path) == [("remove", "/ours")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited", "theirs"]


def test_diffs() -> None:
    path = Path("/x")
    old, new = Content(b"a\nb\n"), Content(b"a\nc\n", 0o755)
    diff = FileChange("/etc/x", path, old, new).diff()
    assert diff == "--- /etc/x\n+++ /etc/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\nmode of /etc/x: 644 -> 755\n"
    assert FileChange("/etc/x", path, None, old).diff() == "--- /dev/null\n+++ /etc/x\n@@ -0,0 +1,2 @@\n+a\n+b\n"
    assert FileChange("/etc/x", path, old, None).diff().startswith("--- /etc/x\n+++ /dev/null\n")
    assert (
        FileChange("/etc/x", path, Content(b"a"), Content(b"a\n"))
        .diff()
        .endswith("-a\n\\ No newline at end of file\n+a\n")
    )
    assert FileChange("/etc/x", path, Content(b"\0"), new).diff() == "binary file /etc/x differs\n"
    assert "+-> ../y\n" in FileChange("/etc/x", path, None, Content(link="../y")).diff()
    assert FileChange("/etc/x", path, old, old).diff() == ""


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc/hosts").mkdir(parents=True)
    with pytest.raises(UserError, match="there is a folder where a file should be") as caught:
        list(compare({"/etc/hosts": Content(b"")}, {}, tmp_path))
    assert caught.value.where == str(tmp_path / "etc/hosts")


def test_a_mounted_file_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's /etc/hosts can't be renamed over; a mount can't be made here, so its error is."""
    path = put(tmp_path, "hosts", "old\n")
    inode = path.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(changes, "write_whole", busy)
    carry_out(FileChange("/hosts", path, Content(b"old\n"), Content(b"new\n")))
    assert path.read_text() == "new\n"
    assert path.stat().st_ino == inode
