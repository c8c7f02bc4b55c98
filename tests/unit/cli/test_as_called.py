"""What a message tells to run can be pasted: it has the --root and --config of the call that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kestrelpi.cli import cli
from kestrelpi.cli.context import Context
from kestrelpi.errors import UserError
from kestrelpi.paths import Paths

HINT = "start it: kestrelpi serve, or systemctl start kestrelpi\nor: kestrelpi images shell a --at packages/apt"


def called(root: str, config: str = "") -> Context:
    paths = Paths(Path(root))
    return Context(paths, Path(config) if config else paths.config, json=False, verbose=False)


def test_on_a_machine_of_its_own_nothing_is_added() -> None:
    assert called("/").as_called(HINT) == HINT


def test_each_command_and_nothing_else_gets_the_options() -> None:
    assert called("/srv/a b", "k.yaml").as_called(HINT) == (
        "start it: kestrelpi --root '/srv/a b' --config k.yaml serve, or systemctl start kestrelpi\n"
        "or: kestrelpi --root '/srv/a b' --config k.yaml images shell a --at packages/apt"
    )


def test_messages_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    called("/srv/a").say("now: kestrelpi reconfigure --all")
    assert capsys.readouterr().err == "now: kestrelpi --root /srv/a reconfigure --all\n"


def test_a_command_that_fails_says_what_to_run_there(tmp_path: Path) -> None:
    words = ["--root", str(tmp_path), "nodes", "list"]
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    assert f"kestrelpi --root {tmp_path} reconfigure" in str(caught.value)
