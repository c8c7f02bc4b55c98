"""Lock file, tree hash and bill of materials of a real image; and builds that go by the lock file."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images import deb822, lock, manifest
from kestrelpi.images.build import build
from kestrelpi.images.packages import STAND_IN
from kestrelpi.images.store import Generation, Store
from kestrelpi.images.tree import describe, tree_hash, walk
from kestrelpi.images.workshop import Versions
from kestrelpi.paths import Paths

from . import support


@pytest.fixture(scope="module")
def generation(built_root: Path) -> Generation:
    found = Store(Paths(built_root)).current("default")
    assert found is not None
    return found


def make_locked(paths: Paths) -> tuple[Generation, support.Recorder]:
    seen = support.Recorder()
    versions = Versions(locked=True)
    return build(paths, config.load(paths.config), "default", watch=seen, versions=versions), seen


def test_the_lock_names_every_installed_package_and_its_bytes(generation: Generation, built_root: Path) -> None:
    found = lock.read(generation.folder / lock.NAME)
    installed = {name: one for name, one in generation.manifest.packages.items() if name != STAND_IN}
    assert len(installed) > 100
    parts = found.packages.keys() - installed.keys()
    assert parts == {"libopenmpi-dev", "raspi-firmware"}, "only files of them are in the image"
    assert {name: found.packages[name].version for name in installed} == installed
    for one in found.packages.values():
        archive = Paths(built_root).cache / "archives" / one.file
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == one.sha256
    text = (generation.folder / lock.NAME).read_text()
    assert "://" not in text
    assert lock.path_of(Paths(built_root), "default").read_text() == text


def test_the_tree_hash_is_that_of_the_root(generation: Generation) -> None:
    assert tree_hash(generation.root) == generation.manifest.tree


def test_nothing_in_the_root_is_newer_than_its_packages(generation: Generation) -> None:
    newest = max(one.epoch for one in lock.read(generation.folder / lock.NAME).sections.values())
    late = [path for path in generation.root.rglob("*") if path.lstat().st_mtime > newest + 1]
    assert late == []


def test_the_bill_names_every_package(generation: Generation) -> None:
    document = json.loads((generation.folder / manifest.NAME).read_text())
    found = {one["name"]: one for one in document["packages"]}
    locked = lock.read(generation.folder / lock.NAME).packages
    assert found.keys() - locked.keys() == {"kestrelpi-image-default"}
    assert found["libc6"]["versionInfo"] == locked["libc6"].version
    assert found["libc6"]["checksums"][0]["checksumValue"] == locked["libc6"].sha256
    licensed = [one for one in found.values() if one["licenseDeclared"] != "NOASSERTION"]
    assert len(licensed) > 20
    assert generation.manifest.tree in document["documentNamespace"]


def test_a_locked_build_of_what_is_there_changes_nothing(paths: Paths) -> None:
    first, _ = support.make(paths)
    second, seen = make_locked(paths)
    assert (second.id, seen.ran) == (first.id, [])


def lines(root: Path) -> dict[str, str]:
    """What the tree hash is made of, by path."""
    return {path: describe(root, path, status, {}) for path, status in walk(root)}


def test_steps_that_run_again_elsewhere_give_the_same_tree(
    paths: Paths, generation: Generation, built_root: Path
) -> None:
    for path in (paths.cache / "layers").iterdir():
        if json.loads((path / "layer.json").read_text())["phase"] in ("post-install", "configure"):
            shutil.rmtree(path)
    lock.path_of(paths, "default").parent.mkdir(parents=True)
    shutil.copy(generation.folder / lock.NAME, lock.path_of(paths, "default"))
    made, seen = make_locked(paths)
    assert "30-clean" in seen.ran
    assert "apt" not in seen.ran
    here, there = lines(made.root), lines(generation.root)
    assert {path for path in here | there if here.get(path) != there.get(path)} == {"etc/fstab"}
    fstab = (generation.root / "etc/fstab").read_text()
    assert str(built_root) in fstab, "the folders that nodes mount are the frontend's"
    assert (made.root / "etc/fstab").read_text() == fstab.replace(str(built_root), str(paths.root))
    assert made.manifest.boot == generation.manifest.boot


def test_a_lock_that_lacks_a_package_is_refused(paths: Paths, script: Callable[[str, str], Path]) -> None:
    support.make(paths)
    script("packages.d/mine", "hello\n")
    with pytest.raises(UserError, match="the lock file doesn't have: hello"):
        make_locked(paths)


def test_a_package_that_is_gone_from_the_archive_is_named(paths: Paths) -> None:
    before, _ = support.make(paths)
    path = lock.path_of(paths, "default")
    found = lock.read(path)
    busybox = found.packages["busybox-static"]
    fields = {**busybox.fields, "Filename": f"{busybox.fields['Filename']}.gone", "SHA256": "0" * 64}
    text = found.to_text().replace(deb822.text_of([busybox.fields]), deb822.text_of([fields]))
    assert text != found.to_text()
    path.write_text(text)
    gone = re.escape(f"can't be had any more: busybox-static {busybox.version}")
    with pytest.raises(UserError, match=gone):
        make_locked(paths)
    current = Store(paths).current("default")
    assert current is not None
    assert current.id == before.id
    assert path.read_text() == text, "a locked build doesn't write the lock file"
