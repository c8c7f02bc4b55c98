"""What would stop a build half-way is found before it starts."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images.preflight import check_filesystem, disk_errors


@pytest.mark.parametrize("kind", ["overlayfs", "nfs"])
def test_file_systems_that_can_hold_no_layer(kind: str) -> None:
    with pytest.raises(UserError, match=kind) as caught:
        check_filesystem(kind, Path("/srv"))
    assert caught.value.where == "/srv"


def test_usual_file_systems() -> None:
    for kind in ("ext2/ext3", "xfs", "btrfs", "tmpfs"):
        check_filesystem(kind, Path("/srv"))


def test_a_full_disk_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the disk is full") as caught, disk_errors(tmp_path / "not/there/yet"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "images gc" in caught.value.fix


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError
