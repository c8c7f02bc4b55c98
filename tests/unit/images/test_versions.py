"""An image must not have a newer slurmd than the frontend's slurmctld."""

from __future__ import annotations

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import versions
from kestrelpi.images.module_file import Manifest, VersionCheck
from kestrelpi.images.modules import Module

SLURM = Module("slurm", (), Manifest("slurm", version_check=VersionCheck("slurmd", "slurmctld", "because")))


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("22.05.8-4+deb12u3", (22, 5)), ("24.11.5-4", (24, 11)), ("1:9.2p1-2", (9, 2)), ("5", (5,))],
)
def test_releases(version: str, numbers: tuple[int, ...]) -> None:
    assert versions.release(version) == numbers


@pytest.mark.parametrize("ours", ["22.05.8-4+deb12u3", "22.05.1-1", "24.11.5-4", ""])
def test_the_same_or_an_older_release_will_do(ours: str) -> None:
    versions.check([SLURM], {"slurmd": "22.05.8-4"}, lambda package: ours if package == "slurmctld" else "1")


def test_a_newer_one_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"slurmd 24.11.5-4, newer than the frontend's slurmctld 22.05.8-4") as caught:
        versions.check([SLURM], {"slurmd": "24.11.5-4"}, lambda package: "22.05.8-4")
    assert caught.value.detail == "because"
    assert "suite" in caught.value.fix


def test_an_image_without_the_package_is_not_asked() -> None:
    versions.check([SLURM, Module("x", (), Manifest("x"))], {"bash": "5.2"}, lambda package: "1")
