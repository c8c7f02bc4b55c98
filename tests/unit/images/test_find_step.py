"""Which step `images shell --at` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images.build import shell_at
from kestrelpi.images.enter import find_step
from kestrelpi.images.plan import BuildPlan, plan
from kestrelpi.paths import Paths

CONFIG = """
build: {mirror: "http://mirror.example/debian"}
images: {default: {suite: trixie, modules: []}}
"""


@pytest.fixture
def planned(tmp_path: Path) -> BuildPlan:
    for phase in ("post-install", "configure"):
        path = tmp_path / f"etc/kestrelpi/node/{phase}.d/95-same"
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return plan(Paths(tmp_path), config.parse(CONFIG), "default", "kestrelpi.yaml", apt=tmp_path / "etc/apt")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("20-units", ("post-install", "20-units")),
        ("post-install/20-units", ("post-install", "20-units")),
        ("configure/95-same", ("configure", "95-same")),
        ("apt", ("packages", "apt")),
        ("overlay", ("configure", "overlay")),
    ],
)
def test_by_its_name_or_with_its_phase(planned: BuildPlan, name: str, step: tuple[str, str]) -> None:
    found = planned.steps[find_step(planned, name)]
    assert (found.phase, found.name) == step


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("95-same", "several scripts are called"),
        ("nope", "no script is called"),
        ("debootstrap", "no script is called"),
        ("install/20-units", "no script is called"),
    ],
)
def test_what_is_not_one_step(planned: BuildPlan, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        find_step(planned, name)
    assert "post-install/95-same" in caught.value.fix


def test_the_command_that_a_failed_build_gives_is_understood(planned: BuildPlan) -> None:
    for number, step in enumerate(planned.steps[1:], 1):
        [line] = shell_at("default", step)
        assert find_step(planned, line.split()[-1]) == number
    assert shell_at("default", planned.steps[0]) == [], "there is no root yet in which a shell could run"
