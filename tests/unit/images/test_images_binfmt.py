"""Emulation is checked before a build, and the error says how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import binfmt

GOOD = """enabled
interpreter {interpreter}
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def folder(tmp_path: Path, text: str | None) -> Path:
    (tmp_path / "register").touch()
    if text is not None:
        (tmp_path / binfmt.ENTRY).write_text(text)
    return tmp_path


def entry(tmp_path: Path, flags: str = "PF") -> str:
    interpreter = tmp_path / "qemu"
    interpreter.touch()
    return GOOD.format(interpreter=interpreter, flags=flags)


def test_a_good_registration(tmp_path: Path) -> None:
    binfmt.check(folder(tmp_path, entry(tmp_path)), "x86_64")


def test_an_arm64_frontend_needs_nothing(tmp_path: Path) -> None:
    binfmt.check(tmp_path, "aarch64")


def test_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not mounted") as caught:
        binfmt.check(tmp_path, "x86_64")
    assert "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc" in caught.value.fix


def test_not_registered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not registered") as caught:
        binfmt.check(folder(tmp_path, None), "x86_64")
    assert "apt-get install qemu-user-static binfmt-support" in caught.value.fix


def test_switched_off(tmp_path: Path) -> None:
    text = entry(tmp_path).replace("enabled", "disabled")
    with pytest.raises(UserError, match="switched off") as caught:
        binfmt.check(folder(tmp_path, text), "x86_64")
    assert "echo 1 >" in caught.value.fix


def test_without_the_flag_f(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without the flag F"):
        binfmt.check(folder(tmp_path, entry(tmp_path, "OC")), "x86_64")


def test_the_interpreter_is_gone(tmp_path: Path) -> None:
    text = entry(tmp_path)
    (tmp_path / "qemu").unlink()
    with pytest.raises(UserError, match="is gone"):
        binfmt.check(folder(tmp_path, text), "x86_64")
