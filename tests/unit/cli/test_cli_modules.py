"""`kestrelpi modules` on a configuration of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kestrelpi.cli import cli
from kestrelpi.errors import UserError

CONFIG = "cluster: x\nimages:\n  default:\n    modules: [openmp]  # for now\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/kestrelpi").mkdir(parents=True)
    config(tmp_path).write_text(CONFIG)
    return tmp_path


def config(root: Path) -> Path:
    return root / "etc/kestrelpi/kestrelpi.yaml"


def call(root: Path, *words: str) -> Result:
    result = CliRunner().invoke(cli, ["--root", str(root), *words])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_enabling_changes_one_line_and_names_what_comes_along(root: Path) -> None:
    said = call(root, "modules", "enable", "slurm").stderr
    assert config(root).read_text() == CONFIG.replace("[openmp]", "[openmp, slurm]")
    assert "openmp, chrony, munge, users, slurm" in said


def test_enabling_twice_changes_nothing(root: Path) -> None:
    assert "already" in call(root, "modules", "enable", "openmp").stderr
    assert config(root).read_text() == CONFIG


def test_disabling_gives_the_file_back(root: Path) -> None:
    call(root, "modules", "enable", "slurm")
    call(root, "modules", "disable", "slurm")
    assert config(root).read_text() == CONFIG


def test_a_module_that_another_needs_stays(root: Path) -> None:
    call(root, "modules", "enable", "munge")
    call(root, "modules", "enable", "slurm")
    assert "munge stays" in call(root, "modules", "disable", "munge").stderr


def test_unknown_names(root: Path) -> None:
    with pytest.raises(UserError, match="there is no module 'slrum'"):
        call(root, "modules", "enable", "slrum")
    with pytest.raises(UserError, match="there is no image 'other'"):
        call(root, "modules", "enable", "slurm", "--image", "other")
    assert config(root).read_text() == CONFIG


def test_a_change_that_cannot_be_is_not_written(root: Path) -> None:
    folder = root / "etc/kestrelpi/modules/rival"
    folder.mkdir(parents=True)
    (folder / "module.yaml").write_text("name: rival\nconflicts: [openmp]\n")
    with pytest.raises(UserError, match="rival and openmp can't be in one image"):
        call(root, "modules", "enable", "rival")
    assert config(root).read_text() == CONFIG


def test_list_and_show(root: Path) -> None:
    call(root, "modules", "enable", "slurm")
    modules = {one["name"]: one for one in json.loads(call(root, "--json", "modules", "list").stdout)}
    assert modules["munge"]["images"] == ["default"]
    assert modules["openmpi"]["images"] == []
    shown = json.loads(call(root, "--json", "modules", "show", "slurm").stdout)
    assert shown["needs"] == ["munge", "users"]
    assert shown["options"]["memory_reserve"]["default"] == "192M"
    text = call(root, "modules", "show", "slurm").stdout
    assert "memory_reserve (size, default 192M)" in text
