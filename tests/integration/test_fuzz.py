"""Damaged packets, and clients that are slow or vanish, against the whole daemon: a well-behaved Pi notices nothing.

`make fuzz` sends a million of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kestrelpi import run

PACKETS = 6_000


def test_service_goes_on_without_a_traceback_and_without_growth() -> None:
    program = Path(__file__).with_name("fuzzing.py")
    try:
        said = run.run([sys.executable, program, "--packets", str(PACKETS)], timeout=300).stdout
    except run.CommandFailed as failed:
        raise AssertionError(failed.detail) from failed
    report = json.loads(said)
    assert report["tracebacks"] == 0, report["log"]
    assert report["wrong"] == [], "the Pi beside them got its address, its file and its names, each time"
    assert not report["workers_died"]
    assert all(times >= 2 for times in report["served"].values()), report["served"]
    assert sum(report["lingering"].values()) > 200
    before, halfway, after = report["memory_mb"]
    # The first half fills tables that are bounded; what still grew in the second would grow for ever.
    assert after - halfway <= max(halfway - before, 8), report["memory_mb"]
    assert after < 200
