"""What a message tells to run can be pasted: it has the --root and --config of the call that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kestrelpi.cli import as_called, cli
from kestrelpi.errors import UserError

HINT = "start it: kestrelpi serve, or systemctl start kestrelpi\nor: kestrelpi images shell a --at packages/apt"


def test_on_a_machine_of_its_own_nothing_is_added() -> None:
    assert as_called(HINT, Path("/"), None) == HINT


def test_each_command_and_nothing_else_gets_the_options() -> None:
    assert as_called(HINT, Path("/srv/a b"), Path("k.yaml")) == (
        "start it: kestrelpi --root '/srv/a b' --config k.yaml serve, or systemctl start kestrelpi\n"
        "or: kestrelpi --root '/srv/a b' --config k.yaml images shell a --at packages/apt"
    )


def test_a_command_that_fails_says_what_to_run_there(tmp_path: Path) -> None:
    called = ["--root", str(tmp_path), "nodes", "list"]
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(cli, called, catch_exceptions=False, standalone_mode=False)
    assert f"kestrelpi --root {tmp_path} reconfigure" in str(caught.value)
