"""What is remembered of MACs, and when it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.nodes import sightings
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.sightings import DEBOUNCE, HEARTBEAT, Sighting, Sightings

MAC = "b8:27:eb:00:00:01"


def test_later_messages_add_and_take_nothing_away(tmp_path: Path) -> None:
    seen = Sightings(tmp_path / "s.json")
    seen.see(MAC, Identity(model="3B", memory_mb=1024, cpus=4), 100)
    assert seen.see(MAC, Identity(serial="00000001"), 103) == Sighting(
        MAC, "00000001", "3B", 0, 1024, 4, first=100, last=103
    )
    assert seen["00:00:00:00:00:00"] == Sighting("00:00:00:00:00:00")


def written(seen: Sightings, now: float, force: bool = False) -> None:
    write = seen.due(now, force)
    assert write is not None
    write()


def test_file_is_written_once_for_many_changes(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    seen = Sightings(path)
    seen.see(MAC, Identity(serial="00000001"), 100)
    assert seen.due(100 + DEBOUNCE / 2) is None
    write = seen.due(100 + DEBOUNCE)
    assert write is not None
    seen.see("dc:a6:32:00:00:02", Identity(), 100.6)
    write()  # in a thread, while more is seen
    assert set(sightings.read(path)) == {MAC}
    written(seen, 102)
    assert Sightings(path).known == seen.known
    seen.see(MAC, Identity(serial="00000001"), 102)
    assert seen.due(103) is None, "being seen again is no news"
    seen.see(MAC, Identity(serial="00000001"), 102 + HEARTBEAT)
    written(seen, 200 + HEARTBEAT)  # but from time to time it is
    seen.see(MAC, Identity(model="4B"), 300)
    written(seen, 300, force=True)
    assert sightings.read(path)[MAC].model == "4B"


def test_a_flood_of_macs_is_bounded(tmp_path: Path) -> None:
    seen = Sightings(tmp_path / "s.json")
    for number in range(sightings.MOST + 5):
        seen.see(f"{number:012x}", Identity(), 1000 + number)
    assert len(seen.known) == sightings.MOST
    assert f"{4:012x}" not in seen.known, "the one that was seen longest ago goes"
    assert f"{5:012x}" in seen.known


def test_a_file_that_is_not_ours_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    assert sightings.read(path) == {}
    for text in ("", "{", "[]", '{"sightings": 5}', '{"sightings": {"a": {"odd": 1}}}'):
        path.write_text(text)
        assert sightings.read(path) == {}, text


def test_a_mac_that_says_another_serial_each_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MOST", 20)
    known = Sightings(tmp_path / "sightings.json")
    for number in range(1, 200):
        known.see("dc:a6:32:00:00:01", Identity(f"{number:08x}"), float(number))
        assert len(known._holder) <= 21
    assert known["dc:a6:32:00:00:01"].serial == f"{199:08x}"
