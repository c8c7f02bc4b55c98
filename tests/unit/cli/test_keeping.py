"""What becomes of changes that were made in a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kestrelpi.cli import keeping
from kestrelpi.cli.context import Context
from kestrelpi.errors import UserError
from kestrelpi.images.by_hand import ByHand
from kestrelpi.paths import Paths

MOTD = ByHand("text", "etc/motd", 0o644, text="hi\n")
STATUS = ByHand("text", "var/lib/dpkg/status", 0o644, text="x")


def context(root: Path, *, as_json: bool = False) -> Context:
    return Context(Paths(root), root / "kestrelpi.yaml", json=as_json, verbose=False)


def test_a_named_script_is_written_and_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeping.offer(context(tmp_path), "default", [MOTD], "80-mine")
    path = tmp_path / "etc/kestrelpi/images/default/configure.d/80-mine"
    assert path.stat().st_mode & 0o777 == 0o755
    assert "cat >etc/motd" in path.read_text()
    assert str(path) in capsys.readouterr().out


def test_where_nobody_can_be_asked_it_is_shown_and_thrown_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping.offer(context(tmp_path), "default", [MOTD], None)
    said = capsys.readouterr()
    assert "cat >etc/motd" in said.err
    assert "Thrown away" in said.err
    assert [*tmp_path.rglob("configure.d")] == []


def test_nothing_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeping.offer(context(tmp_path), "default", [], "80-mine")
    keeping.offer(context(tmp_path), "default", [STATUS], "80-mine")
    said = capsys.readouterr()
    assert said.out == ""
    assert "Packages changed too" in said.err
    assert [*tmp_path.iterdir()] == []


def test_json_lists_the_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeping.offer(context(tmp_path, as_json=True), "default", [MOTD], "80-mine")
    document = json.loads(capsys.readouterr().out)
    assert document["changes"] == [{"kind": "text", "path": "/etc/motd"}]
    assert document["script"].endswith("/80-mine")


def test_a_script_with_what_is_private_is_private(tmp_path: Path) -> None:
    shadow = ByHand("text", "etc/shadow", 0o640, "0:42", "root:$y$…\n")
    keeping.offer(context(tmp_path), "default", [MOTD, shadow], "80-mine")
    path = tmp_path / "etc/kestrelpi/images/default/configure.d/80-mine"
    assert path.stat().st_mode & 0o777 == 0o700


def test_on_a_terminal_the_changes_are_listed() -> None:
    gone = ByHand("gone", "etc/networks")
    assert keeping.summary([MOTD, gone, STATUS]) == "  written  /etc/motd\n  removed  /etc/networks"
    assert "overlays/node" in keeping.summary([ByHand("bytes", "etc/key")])
    assert keeping.summary([gone] * 45).splitlines()[-2:] == ["  removed  /etc/networks", "  and 5 more"]


def test_names(tmp_path: Path) -> None:
    folder = tmp_path / "etc/kestrelpi/images/default/configure.d"
    folder.mkdir(parents=True)
    assert keeping.proposed(folder) == "80-by-hand"
    (folder / "80-by-hand").write_text("")
    assert keeping.proposed(folder) == "81-by-hand"
    keeping.check_name(context(tmp_path), "default", "81-x")
    with pytest.raises(UserError, match="such a script already"):
        keeping.check_name(context(tmp_path), "default", "80-by-hand")
    with pytest.raises(UserError, match="no name for a script"):
        keeping.check_name(context(tmp_path), "default", "mine")
