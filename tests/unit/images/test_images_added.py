"""One package more: it is installed by a step of its own, over the packages that are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.images import account, added, forced, lock, sbom, tidy
from kestrelpi.images.chain import Step
from kestrelpi.images.compare import compare
from kestrelpi.images.layers import LayerInfo, Layers
from kestrelpi.images.manifest import Manifest
from kestrelpi.images.plan import PHASES, BuildPlan, plan
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths

BASE = "btop nano"
KINDS = ("bootstrap", "packages")
_seconds = count()


def make_plan(
    root: Path, packages: str = BASE, image: str = "default", *, locked: bool = False, whole: bool = False
) -> BuildPlan:
    entry = f"{{suite: bookworm, modules: [], packages: [{', '.join(packages.split())}]}}"
    text = f'build: {{mirror: "http://mirror.example/debian"}}\nimages: {{default: {entry}, second: {entry}}}\n'
    return plan(Paths(root), config.parse(text), image, apt=root / "etc/apt", locked=locked, whole=whole)


def a_section(step: Step) -> lock.Section:
    """What the step would install: version 1 of what it is asked for, or of the base system."""
    asked = added.names(step.fields) or ("base",)
    fields = {"Version": "1", "Architecture": "arm64", "Filename": "x", "SHA256": "0" * 64}
    return lock.section(step.phase, 1000 + len(asked), [lock.Package({"Package": one, **fields}) for one in asked])


def pretend_built(root: Path, made: BuildPlan) -> Generation:
    """Have a layer for every step that runs, and publish a generation of all."""
    store, layers = Store(Paths(root)), Layers(Paths(root).cache / "layers")
    for step in made.steps:
        if not step.cached:
            folder = layers.folder / step.key
            folder.mkdir(parents=True)
            if step.kind in KINDS:
                lock.write_section(a_section(step), folder)
            info = LayerInfo(step.key, step.phase, step.name, step.fields)
            (folder / "layer.json").write_text(json.dumps(asdict(info)))
    folder = store.folder(made.image) / ".new-x"
    (folder / "root").mkdir(parents=True)
    keys = tuple(step.key for step in made.steps)
    id = f"20260101-{next(_seconds):06}-00000000"
    manifest = Manifest(id, made.image, "bookworm", "", "6.1", {}, {}, keys, boot_key=made.boot_key)
    (folder / "manifest.json").write_text(sbom.text_of(manifest))
    found = account.lock_of(made, layers)
    assert found is not None
    (folder / lock.NAME).write_text(found.to_text())
    return store.publish(folder, made.image, id)


def build(root: Path, packages: str = BASE, image: str = "default") -> BuildPlan:
    """Plan a build, and carry it out."""
    made = make_plan(root, packages, image)
    pretend_built(root, made)
    return made


def steps(made: BuildPlan) -> list[tuple[str, str, tuple[str, ...]]]:
    """The packages steps: name, why it runs, what it adds."""
    return [(step.name, step.stale, step.added) for step in made.steps if step.kind == "packages"]


def keys(made: BuildPlan) -> list[str]:
    return [step.key for step in made.steps]


def test_a_package_more_is_a_step_more(tmp_path: Path) -> None:
    build(tmp_path)
    made = make_plan(tmp_path, f"{BASE} htop")
    assert steps(made) == [("apt", "", ()), ("apt-2", "package htop", ("htop",))]
    assert {step.phase for step in made.steps if not step.cached} == {"packages", "post-install", "configure"}
    assert made.reasons[0] == "packages apt-2: package htop"
    assert made.to_verify == []
    pretend_built(tmp_path, made)
    again = make_plan(tmp_path, f"{BASE} htop")
    assert again.up_to_date
    assert again.reasons == []
    assert steps(again) == [("apt", "", ()), ("apt-2", "", ("htop",))]


def test_without_it_again_the_layers_of_before_are_used(tmp_path: Path) -> None:
    before = build(tmp_path)
    build(tmp_path, f"{BASE} htop")
    assert keys(make_plan(tmp_path)) == keys(before)
    assert all(step.cached for step in make_plan(tmp_path).steps)


def test_packages_are_added_one_after_the_other_and_taken_out_in_any_order(tmp_path: Path) -> None:
    build(tmp_path)
    build(tmp_path, f"{BASE} htop")
    made = build(tmp_path, f"{BASE} htop jq mc")
    assert steps(made)[1:] == [("apt-2", "", ("htop",)), ("apt-3", "package jq, package mc", ("jq", "mc"))]
    without = make_plan(tmp_path, f"{BASE} jq mc")
    assert steps(without) == [("apt", "", ()), ("apt-2", "package htop", ("jq", "mc"))]
    assert steps(make_plan(tmp_path, "btop htop jq mc")) == [("apt", "package nano", ())], "a package of the first step"


def test_not_more_than_some_steps_lie_over_the_first(tmp_path: Path) -> None:
    names = BASE
    for number in range(added.MOST + 2):
        names += f" extra{number}"
        made = build(tmp_path, names) if number else build(tmp_path, BASE) and build(tmp_path, names)
    found = steps(made)
    assert [name for name, _, _ in found] == ["apt", *(f"apt-{number}" for number in range(2, added.MOST + 2))]
    last = added.MOST - 1
    assert found[-1][2] == tuple(f"extra{number}" for number in range(last, added.MOST + 2))
    assert found[-1][1] == f"package extra{added.MOST + 1}"
    assert make_plan(tmp_path, names).up_to_date


@pytest.mark.parametrize("packages", ["btop", "btop nano htop/bookworm-backports", "htop"])
def test_other_changes_install_everything_anew(tmp_path: Path, packages: str) -> None:
    build(tmp_path)
    assert [(name, more) for name, _, more in steps(make_plan(tmp_path, packages))] == [("apt", ())]


def test_what_lies_below_or_is_forced_installs_everything_anew(tmp_path: Path) -> None:
    build(tmp_path)
    build(tmp_path, f"{BASE} htop")
    forced.remember(Paths(tmp_path), "default", "packages", PHASES)
    assert steps(make_plan(tmp_path, f"{BASE} htop")) == [("apt", "--force", ())]
    build(tmp_path, f"{BASE} htop")
    assert steps(make_plan(tmp_path, f"{BASE} htop jq"))[1:] == [("apt-2", "package jq", ("jq",))], "over the new ones"
    forced.remember(Paths(tmp_path), "default", "bootstrap", PHASES)
    assert steps(make_plan(tmp_path, f"{BASE} htop jq")) == [("apt", "--force, package jq", ())]


def test_everything_anew_can_be_asked_for(tmp_path: Path) -> None:
    build(tmp_path)
    made = make_plan(tmp_path, f"{BASE} htop", whole=True)
    assert steps(made) == [("apt", "package htop", ())]
    pretend_built(tmp_path, made)
    assert steps(make_plan(tmp_path, f"{BASE} htop")) == [("apt", "", ())], "then that is what is used"


def test_an_image_of_the_same_packages_shares_the_steps_and_one_of_others_adds_none(tmp_path: Path) -> None:
    build(tmp_path)
    build(tmp_path, f"{BASE} htop")
    assert steps(make_plan(tmp_path, f"{BASE} htop", "second")) == [("apt", "", ()), ("apt-2", "", ("htop",))]
    assert steps(make_plan(tmp_path, f"{BASE} htop jq", "second")) == [("apt", "new", ())]


def test_a_lost_layer_is_made_again_in_its_place(tmp_path: Path) -> None:
    build(tmp_path)
    made = build(tmp_path, f"{BASE} htop")
    layers = Layers(Paths(tmp_path).cache / "layers")
    layers.remove(next(step.key for step in made.steps if step.added))
    again = make_plan(tmp_path, f"{BASE} htop")
    assert keys(again) == keys(made)
    assert steps(again)[1][1] == "the layer is gone"


def test_the_lock_file_has_one_section_of_all_steps(tmp_path: Path) -> None:
    build(tmp_path)
    generation = pretend_built(tmp_path, make_plan(tmp_path, f"{BASE} htop"))
    found = lock.read(generation.folder / lock.NAME)
    assert set(found.sections) == set(lock.PHASES)
    assert {"btop", "nano", "htop"} < {one.name for one in found.sections["packages"].packages}
    assert found.sections["packages"].epoch == max(1000, found.sections["packages"].epoch)
    assert "htop" in found.wanted


def test_the_upper_step_says_which_version_is_there() -> None:
    def part(epoch: int, **versions: str) -> lock.Section:
        return lock.section(
            "packages", epoch, [lock.Package({"Package": n, "Version": v}) for n, v in versions.items()]
        )

    both = lock.merged(part(2000, a="1", b="1"), part(1000, b="2", c="1"))
    assert {one.name: one.version for one in both.packages} == {"a": "1", "b": "2", "c": "1"}
    assert both.epoch == 2000


def test_a_locked_build_installs_all_in_one_step_and_packages_can_be_added_to_it(tmp_path: Path) -> None:
    build(tmp_path)
    built = pretend_built(tmp_path, make_plan(tmp_path, f"{BASE} htop"))
    path = lock.path_of(Paths(tmp_path), "default")
    path.parent.mkdir(parents=True)
    path.write_bytes((built.folder / lock.NAME).read_bytes())
    locked = make_plan(tmp_path, f"{BASE} htop", locked=True)
    assert steps(locked) == [("apt", "lock file", ())]
    pretend_built(tmp_path, locked)
    assert keys(make_plan(tmp_path, f"{BASE} htop")) == keys(locked), "what nodes boot stays"
    more = make_plan(tmp_path, f"{BASE} htop jq")
    assert steps(more) == [("apt", "", ()), ("apt-2", "package jq", ("jq",))]
    assert keys(more)[:3] == keys(locked)[:3]


def test_layers_of_added_packages_are_kept_as_long_as_a_generation_has_them(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    build(tmp_path)
    with_it = build(tmp_path, f"{BASE} htop")
    key = next(step.key for step in with_it.steps if step.added)
    assert key not in tidy.find(paths, keep=0).layers
    Store(paths).switch(Store(paths).generations("default")[0])
    assert key in tidy.find(paths, keep=0).layers


def test_a_comparison_shows_the_package_and_not_how_it_was_installed(tmp_path: Path) -> None:
    layers = Layers(Paths(tmp_path).cache / "layers")
    one = pretend_built(tmp_path, make_plan(tmp_path))
    two = pretend_built(tmp_path, make_plan(tmp_path, f"{BASE} htop"))
    three = pretend_built(tmp_path, make_plan(tmp_path, f"{BASE} htop", whole=True))
    assert [change.name for change in compare(one, two, layers).configuration] == ["packages apt: package htop"]
    assert compare(two, three, layers).configuration == ()
