"""Locks: who holds one is said to who wants it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kestrelpi import files
from kestrelpi.errors import UserError


def test_who_is_refused_is_told_process_command_and_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/kestrelpi", "images", "build", "my image"])
    path = tmp_path / "lock"
    message = rf"the builder is locked by process {os.getpid()} \(kestrelpi images build 'my image'\) since \d{{4}}-"
    first, second = files.locked(path, "the builder"), files.locked(path, "the builder", wait=0)
    with first, pytest.raises(UserError, match=message), second:
        pass
    with files.locked(path, "the builder", wait=0):
        pass


def test_a_lock_is_had_when_its_note_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "holder_note", full)
    with files.locked(tmp_path / "lock", "the builder"):
        pass
