"""Carrying out `kestrelpi apt`: what is written before a build, kept after it, and restored when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images import apt, apt_history, forced, lock, sbom, wishes
from kestrelpi.images.apt import Proposal
from kestrelpi.images.compare import Change
from kestrelpi.images.manifest import Manifest
from kestrelpi.images.store import Generation, Store
from kestrelpi.images.workshop import Chosen, Versions
from kestrelpi.paths import Paths

CONFIG = """
build: {mirror: "http://mirror.example/debian"}
images: {default: {suite: bookworm, modules: []}}
"""
CHOSEN = Chosen(lock.section("packages", 1000, []), ("htop",))


def publish(paths: Paths, id: str, packages: dict[str, str]) -> Generation:
    store = Store(paths)
    draft = store.folder("default") / ".new-x"
    draft.mkdir(parents=True)
    (draft / "manifest.json").write_text(sbom.text_of(Manifest(id, "default", "bookworm", "", "6.1", packages, {}, ())))
    parts = {phase: lock.section(phase, 1000, []) for phase in lock.PHASES}
    (draft / lock.NAME).write_text(lock.Lock("bookworm", (), parts).to_text())
    return store.publish(draft, "default", id)


class Builder:
    """Stands for a build."""

    def __init__(self, paths: Paths, packages: dict[str, str], fails: bool = False) -> None:
        self.paths, self.packages, self.fails = paths, packages, fails
        self.lists: list[str] = []
        self.forced: list[str] = []
        self.versions: list[Versions] = []

    def __call__(self, force: str, versions: Versions) -> Generation:
        self.lists.append(wishes.read(wishes.path_of(self.paths, "default")))
        self.forced.append(force)
        self.versions.append(versions)
        if self.fails:
            raise UserError("the disk is full")
        return publish(self.paths, "20260102-000000-00000002", self.packages)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path)
    found.etc.mkdir(parents=True)
    found.config.write_text(CONFIG)
    (tmp_path / "etc/apt").mkdir()
    publish(found, "20260101-000000-00000001", {"bash": "5"})
    return found


@pytest.fixture
def parsed() -> Config:
    return config.parse(CONFIG)


def test_an_install_is_built_with_what_was_shown_and_remembered(paths: Paths, parsed: Config) -> None:
    builder = Builder(paths, {"bash": "5", "htop": "3"})
    shown = Proposal("default", "install", ("htop",), "htop\n", (Change("htop", "", "3"),), CHOSEN)
    assert not shown.is_nothing(paths)
    entry = apt.carry_out(paths, parsed, shown, builder)
    assert builder.lists == ["htop\n"], "the list is there when the build begins"
    assert builder.versions[0].chosen == CHOSEN
    assert (entry.id, entry.before, entry.after) == (1, "20260101-000000-00000001", "20260102-000000-00000002")
    assert entry.changes == (Change("htop", "", "3"),)
    assert apt_history.read(apt_history.path_of(paths, "default")) == [entry]
    assert Proposal("default", "install", ("htop",), "htop\n", ()).is_nothing(paths)


def test_a_build_that_fails_leaves_list_and_history_as_they_were(paths: Paths, parsed: Config) -> None:
    path = wishes.path_of(paths, "default")
    forced.write(paths, "default", {"packages": "then"})
    proposal = Proposal("default", "install", ("htop",), "htop\n", (), CHOSEN)
    with pytest.raises(UserError, match="disk is full"):
        apt.carry_out(paths, parsed, proposal, Builder(paths, {}, fails=True))
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# mine\n")
    with pytest.raises(UserError, match="disk is full"):
        apt.carry_out(paths, parsed, proposal, Builder(paths, {}, fails=True))
    assert path.read_text() == "# mine\n"
    assert forced.read(paths, "default") == {"packages": "then"}
    assert apt_history.read(apt_history.path_of(paths, "default")) == []


def test_undoing_an_upgrade_brings_back_the_keys_and_versions_of_before(paths: Paths, parsed: Config) -> None:
    forced.write(paths, "default", {"packages": "then"})

    def upgrade(force: str, versions: Versions) -> Generation:
        forced.remember(paths, "default", force, ("packages",))
        return Builder(paths, {"bash": "6"})(force, versions)

    shown = Proposal("default", "upgrade", (), "", (Change("bash", "5", "6"),), CHOSEN, "packages")
    apt.carry_out(paths, parsed, shown, upgrade)
    assert forced.read(paths, "default")["packages"] != "then"
    proposal = apt.propose_undo(paths, parsed, "default", None)
    assert proposal.changes == (Change("bash", "6", "5"),)
    seen: list[tuple[dict[str, str], Versions]] = []

    def build(force: str, versions: Versions) -> Generation:
        seen.append((forced.read(paths, "default"), versions))
        return Store(paths).generation("default", "00000001")

    entry = apt.carry_out(paths, parsed, proposal, build)
    assert seen[0][0] == {"packages": "then"}
    assert seen[0][1].keep is not None
    assert seen[0][1].chosen is None
    assert entry.action == "undo 1"
    assert json.loads(apt_history.path_of(paths, "default").read_text().splitlines()[1])["id"] == 2
