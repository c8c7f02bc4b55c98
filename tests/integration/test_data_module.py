"""The module data's script, run as root in a mount namespace of its own; the disk is a stand-in."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.paths import data_dir
from kestrelpi.templates import render

SCRIPT = data_dir() / "modules/data/overlay/node/usr/local/lib/kestrelpi/data.j2"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    options = {"path": str(tmp_path / "data"), "label": "no-disk-has-this", "wait": 0, "memory": 25}
    path = tmp_path / "script"
    path.write_text(render(SCRIPT, {"options": {"data": options}}))
    path.chmod(0o755)
    return path


def alone(path: str, command: str) -> str:
    """Run a shell command in a namespace whose mounts nobody else sees."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", command]
    return run.run(argv, env={"PATH": f"{path}{run.PATH}"}, timeout=60).stdout


def programs(tmp_path: Path, **answers: str) -> str:
    """Stand-ins that print what is told and write down how they are called; PATH's beginning."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, answer in answers.items():
        text = f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{answer}\n'
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:"


def test_without_a_disk_it_is_a_share_of_the_memory(tmp_path: Path, script: Path) -> None:
    data = shlex.quote(str(tmp_path / "data"))
    # The second time there is nothing to do, and what is there stays.
    command = f"{script}; echo kept >{data}/file; {script}; cat {data}/file; stat -f -c '%T %b %S' {data}"
    *said, kept, kind = alone("", command).splitlines()
    assert said == [f"data: no disk with the label no-disk-has-this: 25 % of the memory is on {tmp_path}/data"]
    assert kept == "kept"
    name, blocks, size = kind.split()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert name == "tmpfs"
    assert int(blocks) * int(size) == pytest.approx(memory / 4, rel=0.02)
    assert not (tmp_path / "data/file").exists(), "it was mounted for that script alone"


def test_a_disk_with_the_label_is_checked_and_mounted(tmp_path: Path, script: Path) -> None:
    path = programs(tmp_path, findfs="echo /dev/sdz1", blkid="echo ext4", fsck="exit 1", mount="")
    assert alone(path, str(script)) == f"data: /dev/sdz1 is on {tmp_path}/data\n"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [
        "findfs LABEL=no-disk-has-this",
        "blkid -o value -s TYPE /dev/sdz1",
        "fsck -T -a /dev/sdz1",
        f"mount -o nodev,nosuid,noatime /dev/sdz1 {tmp_path}/data",
    ]


def test_a_disk_that_can_hold_no_containers_is_left_alone(tmp_path: Path, script: Path) -> None:
    path = programs(tmp_path, findfs="echo /dev/sdz1", blkid="echo vfat", fsck="", mount="")
    assert "25 % of the memory" in alone(path, str(script))
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == f"mount -t tmpfs -o nodev,nosuid,mode=0755,size=25% tmpfs {tmp_path}/data"
    assert not any(call.startswith("fsck") for call in calls)


def test_a_mount_that_fails_is_a_failure(tmp_path: Path, script: Path) -> None:
    path = programs(tmp_path, findfs="echo /dev/sdz1", blkid="echo ext4", fsck="", mount="exit 32")
    with pytest.raises(UserError, match="status 32"):
        alone(path, str(script))
