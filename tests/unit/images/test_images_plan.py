"""The plan: which steps, in which order, which would run, and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.images import forced, lock, sbom
from kestrelpi.images.layers import LayerInfo, Layers
from kestrelpi.images.manifest import Manifest
from kestrelpi.images.plan import PHASES, BuildPlan, plan
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

CONFIG = """
build: {mirror: "http://mirror.example/debian"}
images:
  default: {suite: bookworm, modules: [], packages: [htop]}
  other: {suite: bookworm, modules: [], packages: [nano]}
"""


def make_plan(root: Path, text: str = CONFIG, image: str = "default") -> BuildPlan:
    return plan(Paths(root), config.parse(text), image, "kestrelpi.yaml", apt=root / "etc/apt")


def pretend_built(root: Path, made: BuildPlan) -> None:
    """Seal an empty layer for every step, and publish a generation of them."""
    paths = Paths(root)
    layers = Layers(paths.cache / "layers")
    for step in made.steps:
        with layers.draft(step.key) as draft:
            layers.seal(draft, LayerInfo(step.key, step.phase, step.name, step.fields))
    store = Store(paths)
    draft_folder = store.folder(made.image) / ".new-x"
    draft_folder.mkdir(parents=True)
    keys = tuple(step.key for step in made.steps)
    id = "20260101-000000-00000000"
    manifest = Manifest(id, made.image, "bookworm", "", "6.1", {}, {}, keys, boot_key=made.boot_key)
    (draft_folder / "manifest.json").write_text(sbom.text_of(manifest))
    store.publish(draft_folder, made.image, id)


def script(root: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    path = root / "etc/kestrelpi/node" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_phases_come_in_their_order_and_all_steps_run_at_first(tmp_path: Path) -> None:
    made = make_plan(tmp_path)
    phases = list(dict.fromkeys(step.phase for step in made.steps))
    assert phases == ["bootstrap", "install", "packages", "post-install", "configure"]
    assert {step.stale for step in made.steps} == {"new"}
    assert len({step.key for step in made.steps}) == len(made.steps)
    assert "htop" in made.wanted.names


def test_after_a_build_nothing_is_to_do(tmp_path: Path) -> None:
    pretend_built(tmp_path, make_plan(tmp_path))
    made = make_plan(tmp_path)
    assert made.up_to_date
    assert made.reasons == []
    assert all(step.cached for step in made.steps)


def test_a_changed_script_makes_itself_and_what_follows_stale(tmp_path: Path) -> None:
    script(tmp_path, "configure.d/05-first")
    script(tmp_path, "configure.d/95-last")
    pretend_built(tmp_path, make_plan(tmp_path))
    script(tmp_path, "configure.d/05-first", "#!/bin/sh\ntrue\n")
    made = make_plan(tmp_path)
    stale = {step.name: step.stale for step in made.steps if not step.cached}
    assert stale["05-first"] == "script"
    assert stale["95-last"] == "previous step"
    assert {step.phase for step in made.steps if not step.cached} == {"configure"}
    assert not made.up_to_date


def test_a_new_package_is_named(tmp_path: Path) -> None:
    pretend_built(tmp_path, make_plan(tmp_path))
    made = make_plan(tmp_path, CONFIG.replace("htop", "htop, jq"))
    assert [step.stale for step in made.steps if step.phase == "packages"] == ["", "package jq"]
    assert made.steps[0].cached


def test_images_share_their_first_steps(tmp_path: Path) -> None:
    one, two = make_plan(tmp_path), make_plan(tmp_path, image="other")
    assert one.steps[0].key == two.steps[0].key
    assert one.steps[-1].key != two.steps[-1].key


def test_a_lost_layer_is_said(tmp_path: Path) -> None:
    pretend_built(tmp_path, make_plan(tmp_path))
    last = make_plan(tmp_path).steps[-1]
    shutil.rmtree(Paths(tmp_path).cache / "layers" / last.key)
    assert make_plan(tmp_path).steps[-1].stale == "the layer is gone"


def test_force_makes_a_phase_and_what_follows_run_anew(tmp_path: Path) -> None:
    pretend_built(tmp_path, make_plan(tmp_path))
    forced.remember(Paths(tmp_path), "default", "packages", PHASES)
    made = make_plan(tmp_path)
    assert {step.phase for step in made.steps if not step.cached} == {"packages", "post-install", "configure"}
    assert next(step.stale for step in made.steps if step.phase == "packages") == "--force"
    assert make_plan(tmp_path, image="other").steps[0].cached


def test_what_overrides_what_and_what_is_removed(tmp_path: Path) -> None:
    mine = script(tmp_path, "configure.d/20-timezone")
    made = make_plan(tmp_path)
    step = next(step for step in made.steps if step.name == "20-timezone")
    assert step.path == mine
    assert [path.name for path in step.overrides] == ["20-timezone"]
    mine.write_text("")
    made = make_plan(tmp_path)
    assert [one.path for one in made.removed] == [mine]
    assert "20-timezone" not in [step.name for step in made.steps]


def test_a_script_that_is_not_executable_stops_the_plan(tmp_path: Path) -> None:
    script(tmp_path, "install.d/50-mine").chmod(0o644)
    with pytest.raises(UserError, match="not executable"):
        make_plan(tmp_path)


def test_another_kind_of_root_asks_for_a_build_but_runs_no_step(tmp_path: Path) -> None:
    kinds = [CONFIG.replace("packages: [htop]", f"packages: [htop], root: {kind}") for kind in ("nfs", "squashfs")]
    pretend_built(tmp_path, make_plan(tmp_path, kinds[0]))
    assert make_plan(tmp_path, kinds[0]).up_to_date
    made = make_plan(tmp_path, kinds[1])
    assert not made.up_to_date
    assert all(step.cached for step in made.steps)
    assert made.reasons == ["the initramfs's files or images.NAME.root changed"]


def test_an_initramfs_file_alone_asks_for_a_build(tmp_path: Path) -> None:
    pretend_built(tmp_path, make_plan(tmp_path))
    extra = tmp_path / "etc/kestrelpi/overlays/initramfs/etc/mine"
    extra.parent.mkdir(parents=True)
    extra.write_text("x")
    made = make_plan(tmp_path)
    assert all(step.cached for step in made.steps)
    assert made.reasons == ["the initramfs's files or images.NAME.root changed"]


def test_unknown_images_and_modules(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image 'fast'"):
        make_plan(tmp_path, image="fast")
    with pytest.raises(ConfigError, match="no module 'slrm'"):
        make_plan(tmp_path, CONFIG.replace("modules: [], packages: [htop]", "modules: [slrm]"))


def a_section(phase: str, version: str) -> lock.Section:
    fields = {"Package": "htop", "Version": version, "Architecture": "arm64", "Filename": "x", "SHA256": "0" * 64}
    return lock.section(phase, 1000, [lock.Package(fields)])


def write_lock(root: Path, sections: list[lock.Section], wanted: tuple[str, ...]) -> None:
    path = lock.path_of(Paths(root), "default")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lock.Lock("bookworm", wanted, {one.phase: one for one in sections}).to_text())


def make_locked(root: Path) -> BuildPlan:
    return plan(Paths(root), config.parse(CONFIG), "default", "x", apt=root / "etc/apt", locked=True)


def test_a_locked_build_uses_layers_with_the_same_packages_and_no_others(tmp_path: Path) -> None:
    made = make_plan(tmp_path)
    pretend_built(tmp_path, made)
    layers = Paths(tmp_path).cache / "layers"
    sections = [a_section("bootstrap", "1"), a_section("packages", "2")]
    for section in sections:
        step = next(one for one in made.steps if one.phase == section.phase)
        lock.write_section(section, layers / step.key)
    write_lock(tmp_path, sections, made.wanted.words)
    assert [step.key for step in make_locked(tmp_path).steps] == [step.key for step in made.steps]
    write_lock(tmp_path, [sections[0], a_section("packages", "3")], made.wanted.words)
    again = make_locked(tmp_path)
    assert [step.phase for step in again.steps if step.cached] == ["bootstrap", "install"]
    assert next(step.stale for step in again.steps if step.phase == "packages") == "lock file"
    assert [step.key for step in make_plan(tmp_path).steps] == [step.key for step in made.steps]


def test_what_was_built_from_a_lock_file_stays_until_something_changes(tmp_path: Path) -> None:
    wanted = make_plan(tmp_path).wanted.words
    write_lock(tmp_path, [a_section("bootstrap", "1"), a_section("packages", "2")], wanted)
    locked = make_locked(tmp_path)
    assert [step.fields.get("lock file", "") != "" for step in locked.steps[:3]] == [True, False, True]
    pretend_built(tmp_path, locked)
    again = make_plan(tmp_path)
    assert [step.key for step in again.steps] == [step.key for step in locked.steps]
    assert again.up_to_date
    more = make_plan(tmp_path, CONFIG.replace("[htop]", "[htop, btop]"))
    assert [step.phase for step in more.steps if step.cached] == ["bootstrap", "install", "packages"]
    assert [step.name for step in more.steps if "lock file" in step.fields] == ["debootstrap", "apt"]
    forced.remember(Paths(tmp_path), "default", "bootstrap", PHASES)
    assert not any(step.cached for step in make_plan(tmp_path).steps)


def test_a_locked_plan_is_refused_without_a_lock_file_that_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no lock file"):
        make_locked(tmp_path)
    made = make_plan(tmp_path)
    write_lock(tmp_path, [a_section("bootstrap", "1"), a_section("packages", "2")], (*made.wanted.words, "btop"))
    with pytest.raises(UserError, match="no longer asked for: btop"):
        make_locked(tmp_path)
