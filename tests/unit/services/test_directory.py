"""The directory's snapshot of the registry."""

from __future__ import annotations

from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.files import write_whole
from kestrelpi.paths import Paths
from kestrelpi.services.directory import Directory

NODES = 'nodes:\n  rpi1: {mac: "dc:a6:32:00:00:01", group: rpi, address: 10.77.0.11}\n'


def test_a_registry_that_is_replaced_counts_at_once(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_whole(paths.registry, "")
    directory = Directory(paths, Config())
    assert not directory.changed()
    write_whole(paths.registry, NODES)
    assert directory.changed()
    assert not directory.changed()


def test_one_that_is_written_in_place_counts_when_it_stays_the_same(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    write_whole(paths.registry, NODES)
    directory = Directory(paths, Config())
    paths.registry.write_text("")
    assert not directory.changed(), "an editor has emptied it and hasn't written yet"
    paths.registry.write_text(NODES + "# more\n")
    assert not directory.changed()
    assert directory.changed()
    assert not directory.changed()


def test_the_first_registry_counts(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    directory = Directory(paths, Config())
    write_whole(paths.registry, NODES)
    assert directory.changed()
    assert directory.reload() and len(directory.registry) == 1
    paths.registry.unlink()
    assert directory.changed()
