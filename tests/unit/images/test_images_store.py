"""Generations and layers on disk."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images import sbom, tidy
from kestrelpi.images.layers import LayerInfo, Layers, remove_tree
from kestrelpi.images.manifest import BootFileInfo, BuildRecord, Manifest, StepRecord
from kestrelpi.images.store import Generation, Store, new_id
from kestrelpi.paths import Paths


def publish(paths: Paths, id: str, keys: tuple[str, ...] = (), image: str = "default") -> Generation:
    store = Store(paths)
    draft = store.folder(image) / f".new-{id}"
    draft.mkdir(parents=True)
    manifest = Manifest(id, image, "bookworm", "", "6.1", {"bash": "5.2"}, {"vmlinuz": BootFileInfo(1, "ab")}, keys)
    (draft / "manifest.json").write_text(sbom.text_of(manifest))
    return store.publish(draft, image, id)


ONE, TWO, THREE = (f"2026010{day}-000000-0000000{day}" for day in (1, 2, 3))


def test_the_last_published_is_current(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    store = Store(paths)
    assert store.current("default") is None
    assert store.images() == []
    publish(paths, ONE)
    publish(paths, TWO)
    current = store.current("default")
    assert current is not None
    assert current.id == TWO
    assert (paths.images / "default/current").readlink() == Path(f"generations/{TWO}")
    assert current.manifest.packages == {"bash": "5.2"}
    assert current.manifest.boot["vmlinuz"] == BootFileInfo(1, "ab")
    assert [one.id for one in store.generations("default")] == [ONE, TWO]
    assert store.images() == ["default"]


def test_a_generation_by_one_end_of_its_id(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    publish(paths, ONE)
    publish(paths, TWO)
    store = Store(paths)
    assert store.generation("default", "20260101").id == ONE
    assert store.generation("default", "00000002").id == TWO
    with pytest.raises(UserError, match="several"):
        store.generation("default", "2026")
    with pytest.raises(UserError, match="no generation"):
        store.generation("default", "1999")


def test_the_current_generation_is_not_removed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    one, two = publish(paths, ONE), publish(paths, TWO)
    store = Store(paths)
    with pytest.raises(UserError, match="is the current generation"):
        store.remove(two)
    store.remove(one)
    assert [path.name for path in store.folder("default").iterdir()] == [TWO]


def test_drafts_of_killed_builds_are_no_generations_and_go(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    publish(paths, ONE)
    store = Store(paths)
    half = store.folder("default") / f".new-{TWO}/root/etc"
    half.mkdir(parents=True)
    assert [one.id for one in store.generations("default")] == [ONE]
    store.clean()
    assert not half.exists()


def test_what_was_removed_meanwhile_cant_become_current(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    first = publish(paths, ONE)
    publish(paths, TWO)
    store = Store(paths)
    store.remove(first)
    with pytest.raises(UserError, match="is gone"):
        store.switch(first)
    current = store.current("default")
    assert current is not None
    assert current.id == TWO


def test_what_a_killed_switch_left_goes(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    publish(paths, ONE)
    folder = paths.images / "default"
    (folder / ".current.4711").symlink_to(f"generations/{ONE}")
    (folder / ".forced.json.abc").touch()
    Store(paths).clean()
    assert {path.name for path in folder.iterdir()} == {"current", "current.lock", "generations"}


def test_removing_bears_that_somebody_else_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "draft"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/file").touch()
    real, late = os.rmdir, [folder / "late"]

    def rmdir(path: str, *, dir_fd: int | None = None) -> None:
        if late:  # a process of a build that was just killed
            late.pop().touch()
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr("os.rmdir", rmdir)
    remove_tree(folder)
    assert not folder.exists()


def test_a_layer_appears_when_it_is_sealed(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "layers")
    with layers.draft("abc") as draft:
        (draft.tree / "file").write_text("x")
        assert not layers.has("abc")
        layers.seal(draft, LayerInfo("abc", "configure", "10-a", {"script": "1"}, 0.5))
    assert layers.has("abc")
    assert (layers.tree("abc") / "file").read_text() == "x"
    assert layers.info("abc") == LayerInfo("abc", "configure", "10-a", {"script": "1"}, 0.5)
    assert not (layers.folder / "abc/work").exists()


def test_a_layer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    layers = Layers(tmp_path / "layers")
    with pytest.raises(RuntimeError), layers.draft("abc") as draft:
        (draft.tree / "file").write_text("x")
        raise RuntimeError
    assert list(layers.folder.iterdir()) == []


def test_rubbish_is_what_no_kept_generation_needs(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    layers = Layers(paths.cache / "layers")
    for key in ("base", "one", "two", "three", "lost"):
        with layers.draft(key) as draft:
            layers.seal(draft, LayerInfo(key, "", "", {}))
    publish(paths, ONE, ("base", "one"))
    publish(paths, TWO, ("base", "two"))
    publish(paths, THREE, ("base", "three"))
    found = tidy.find(paths, keep=1, used={("default", ONE)})
    assert [one.id for one in found.generations] == [TWO]
    assert set(found.layers) == {"two", "lost"}
    assert tidy.find(paths, keep=9).generations == ()


def test_the_current_generation_is_no_rubbish_after_a_rollback(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    first = publish(paths, ONE)
    publish(paths, TWO)
    Store(paths).switch(first)
    assert [one.id for one in tidy.find(paths, keep=0).generations] == [TWO]


def test_packed_roots_go_with_the_last_generation_that_has_them(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    generation = publish(paths, ONE)
    folder = paths.cache / "squashfs"
    folder.mkdir(parents=True)
    for name in ("used.squashfs", "left.squashfs", ".new-half.squashfs"):
        (folder / name).touch()
    (generation.folder / "squashfs").mkdir()
    (generation.folder / "squashfs/10-base.squashfs").hardlink_to(folder / "used.squashfs")
    tidy.collect(paths, keep=1)
    assert [path.name for path in folder.iterdir()] == ["used.squashfs"]


def test_ids_sort_by_time_and_stand_for_the_content() -> None:
    early = new_id(("a",), datetime(2026, 11, 22, 1, 30, tzinfo=UTC))
    late = new_id(("a",), datetime(2026, 11, 22, 1, 31, tzinfo=UTC))
    assert early.startswith("20261122-013000-")
    assert early < late
    assert early[-8:] == late[-8:] != new_id(("b",))[-8:]


def test_build_json_comes_back_as_it_was(tmp_path: Path) -> None:
    step = StepRecord("configure", "10-a", "built-in", "/x/10-a", ("/y/10-a",), "abc", False, "script", 0.5, "/log")
    record = BuildRecord("2026-01-01T00:00:00+00:00", 3.5, (step,))
    path = tmp_path / "build.json"
    path.write_text(record.to_json())
    assert BuildRecord.read(path) == record
