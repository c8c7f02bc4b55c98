"""What a shell's upper layer becomes as a script: the script is read, and what it would do is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.images.by_hand import ByHand, changes, installed, script, worth_a_script


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    root = tmp_path / "lower"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/link").symlink_to("hosts")
    return root


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "upper"
    (folder / "etc").mkdir(parents=True)
    return folder


def rights(path: Path) -> tuple[int, str]:
    status = path.lstat()
    return status.st_mode & 0o7777, f"{status.st_uid}:{status.st_gid}"


def test_nothing_but_what_every_shell_leaves(upper: Path, lower: Path) -> None:
    (upper / "root").mkdir()
    (lower / "root").mkdir()
    (upper / "root/.bash_history").write_text("ls\n")
    (upper / "etc/shadow-").write_text("the one before\n")
    (upper / "tmp").mkdir()
    (upper / "tmp/x").write_text("x")
    (upper / "var/log").mkdir(parents=True)
    (lower / "var").mkdir()
    (upper / "var/log/x").write_text("x")
    assert changes(upper, lower) == []
    assert not worth_a_script([])


def test_new_and_changed_files(upper: Path, lower: Path) -> None:
    (upper / "etc/hosts").write_text("127.0.0.1 localhost\n10.0.0.1 nas\n")
    (upper / "etc/new.d").mkdir()
    (upper / "etc/new.d/it's").write_text("no end of line")
    (upper / "etc/new.d/it's").chmod(0o750)
    (upper / "etc/link").symlink_to("new.d")
    found = changes(upper, lower)
    assert [(one.kind, one.name) for one in found] == [
        ("text", "etc/hosts"),
        ("link", "etc/link"),
        ("folder", "etc/new.d"),
        ("text", "etc/new.d/it's"),
    ]
    text = script(found)
    assert "rm -f etc/hosts\ncat >etc/hosts <<'END-OF-FILE'\n127.0.0.1 localhost\n10.0.0.1 nas\nEND-OF-FILE\n" in text
    assert "rm -rf etc/link\nln -s new.d etc/link\n" in text
    assert "no end of line\nEND-OF-FILE\ntruncate -s -1 'etc/new.d/it'\"'\"'s'\n" in text
    assert "chmod 0750 'etc/new.d/it'\"'\"'s'\n" in text
    assert text.startswith("#!/bin/sh\n")
    assert "# needs: KESTRELPI_ROOT" in text


def test_a_file_that_was_only_opened_for_writing_is_no_change(upper: Path, lower: Path) -> None:
    (upper / "etc/hosts").write_bytes((lower / "etc/hosts").read_bytes())
    (upper / "etc/link").symlink_to("hosts")
    assert changes(upper, lower) == []
    (upper / "etc/hosts").chmod(0o600)
    mode, owner = rights(upper / "etc/hosts")
    assert changes(upper, lower) == [ByHand("mode", "etc/hosts", mode, owner)]
    assert f"chown -h {owner} etc/hosts\nchmod 0600 etc/hosts\n" in script(changes(upper, lower))


def test_what_is_no_text_is_left_to_the_overlay(upper: Path, lower: Path) -> None:
    (upper / "etc/key").write_bytes(b"\0\1")
    (upper / "etc/long").write_text("x" * 70000)
    (upper / "etc/latin").write_bytes(b"\xe9")
    found = changes(upper, lower)
    assert [one.kind for one in found] == ["bytes"] * 3
    assert "/etc/kestrelpi/overlays/node/etc/key" in script(found)
    assert "cat >" not in script(found)


def test_what_is_gone() -> None:
    assert "rm -rf 'etc/a b'\n" in script([ByHand("gone", "etc/a b")])


def test_packages_have_their_own_place() -> None:
    found = [ByHand("text", "var/lib/dpkg/status", text="x")]
    assert installed(found)
    assert not worth_a_script(found)
    assert "dpkg" not in script(found)
