"""Locks: who holds one is said to who wants it. Lines that a thread writes later."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from kestrelpi import files
from kestrelpi.errors import UserError
from kestrelpi.files import Later
from tests.waiting import until


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


def test_a_slow_disk_keeps_nobody_who_remembers_lines_waiting(tmp_path: Path) -> None:
    slow, other = tmp_path / "slow", tmp_path / "other"
    os.mkfifo(slow)  # opening it to write waits for a reader
    later = Later()
    later.append(slow, b"one\n")
    write = later.due()
    assert write is not None
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    until(lambda: later.due() is None, "the line's way to the disk", 5)
    remembers = threading.Thread(target=later.append, args=(other, b"two\n"), daemon=True)
    remembers.start()
    remembers.join(5)
    assert not remembers.is_alive()
    assert slow.read_bytes() == b"one\n"
    writer.join(5)
    later.settle(other)
    assert other.read_bytes() == b"two\n"


def test_the_files_of_a_room_are_written_a_part_at_a_time_the_oldest_first(tmp_path: Path) -> None:
    later = Later()
    room = [tmp_path / str(number) for number in range(1000)]
    for path in [*room, *room]:
        later.append(path, b"line\n")
    parts = []
    while write := later.due():
        write()
        parts.append(len(list(tmp_path.iterdir())))
        if len(parts) == 1:
            assert set(tmp_path.iterdir()) == set(room[:125])
    assert parts == [125, 234, 330, 414, 487, 551, 615, 679, 743, 807, 871, 935, 999, 1000]
    assert {path.read_bytes() for path in room} == {b"line\nline\n"}
    for path in room:
        later.append(path, b"last\n")
    write = later.due(everything=True)
    assert write is not None
    write()
    assert later.due() is None and {path.read_bytes()[-5:] for path in room} == {b"last\n"}


def test_of_a_flood_no_more_waits_than_of_a_large_room(tmp_path: Path) -> None:
    later = Later()
    for number in range(5000):
        later.append(tmp_path / str(number), b"line\n")
    write = later.due()
    assert write is not None
    write()
    assert len(list(tmp_path.iterdir())) == 5000 - Later.WAITING


def test_what_comes_faster_than_the_disk_takes_it_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Later, "MOST", 3)
    later = Later()
    for number in range(5):
        later.append(tmp_path / str(number), b"line\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_folder_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    files.append(tmp_path / "removed" / "file", b"one\n")
    files.append(tmp_path / "removed" / "file", b"two\n")
    assert (tmp_path / "removed" / "file").read_bytes() == b"one\ntwo\n"
