"""What the daemon reads from the workers' pipe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from kestrelpi.services.tftp import FolderSource, TftpProcess, TransferEvent
from kestrelpi.services.tftp import process as process_module
from kestrelpi.services.tftp.process import tell


def test_events_and_counters_arrive_whole_from_a_pipe_read_in_pieces(tmp_path: Path) -> None:
    process = TftpProcess("127.0.0.1", 1, partial(FolderSource, tmp_path))
    try:
        write = process._writer.fileno()
        event = TransferEvent("done", "S/config.txt", "10.77.0.9", 900, 0.01)
        line = json.dumps(asdict(event)).encode() + b"\n"
        os.write(write, line + line[:20])
        assert process.read() == [event]
        assert process.read() == []
        os.write(write, line[20:])
        tell(write, {"worker": 0, "started": 3, "done": 2})
        tell(write, {"worker": 1, "started": 1})
        tell(write, {"worker": 0, "started": 5, "done": 4})
        assert process.read() == [event]
        assert process.counters == {"started": 6, "done": 4}
    finally:
        process.stop()


def test_a_daemon_that_does_not_read_loses_events_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "PIPE_BYTES", 65536)
    process = TftpProcess("127.0.0.1", 1, partial(FolderSource, tmp_path))
    try:
        for _ in range(2_000):
            tell(process._writer.fileno(), asdict(TransferEvent("start", "f", "10.77.0.9")))
        received = 0
        while events := process.read():
            received += len(events)
        assert 300 < received < 2_000
    finally:
        process.stop()
