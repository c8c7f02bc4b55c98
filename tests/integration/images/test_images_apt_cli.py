"""`kestrelpi apt` on a real image: what would change, what is refused, what is done, and how it is taken back."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from kestrelpi.images import enter, wishes
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths
from tests.program import program

from . import support


def apt(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    command = program(paths.root, "--json", "apt", *words)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_shows_what_comes_along_and_writes_nothing(paths: Paths) -> None:
    support.make(paths)
    changes = document(apt(paths, "install", "--plan", "screen"))["changes"]
    assert {"screen", "libutempter0"} == {one["name"] for one in changes}
    assert all(one["new"] and not one["old"] for one in changes)
    assert not wishes.path_of(paths, "default").exists()


def test_what_is_refused_writes_nothing(paths: Paths) -> None:
    support.make(paths)
    unknown = apt(paths, "install", "screeen")
    assert unknown.returncode == 1
    assert "there is no package 'screeen'" in unknown.stderr
    assert "screen" in unknown.stderr.partition("did you mean")[2]
    needed = apt(paths, "remove", "libdbus-1-3")
    assert "libdbus-1-3 is needed by dbus" in needed.stderr
    base = apt(paths, "remove", "bash")
    assert "bash belongs to Debian's base system" in base.stderr
    assert not wishes.path_of(paths, "default").exists()


def current(paths: Paths) -> Generation:
    found = Store(paths).current("default")
    assert found is not None
    return found


def test_a_package_comes_and_its_coming_is_taken_back(paths: Paths) -> None:
    first, _ = support.make(paths)
    came = document(apt(paths, "install", "screen"))
    second = current(paths)
    assert (came["id"], came["action"], came["names"]) == (1, "install", ["screen"])
    assert (came["before"], came["after"]) == (first.id, second.id)
    assert {one["name"] for one in came["changes"]} == {"screen", "libutempter0"}
    assert wishes.asked(wishes.read(wishes.path_of(paths, "default"))) == ["screen"]
    assert "Screen version" in enter.execute(second, ["screen", "--version"])
    kept = {name: version for name, version in second.manifest.packages.items() if name in first.manifest.packages}
    assert kept == first.manifest.packages, "the other packages stay as they were"

    assert document(apt(paths, "install", "screen"))["changes"] == [], "it is there already"
    assert document(apt(paths, "upgrade", "--plan"))["changes"] == [], "there is nothing newer"
    assert current(paths) == second

    back = document(apt(paths, "undo"))
    third = current(paths)
    assert (back["id"], back["action"], back["before"], back["after"]) == (2, "undo 1", second.id, third.id)
    assert third.manifest.tree == first.manifest.tree
    assert wishes.asked(wishes.read(wishes.path_of(paths, "default"))) == []

    again = document(apt(paths, "install", "screen"))
    gone = document(apt(paths, "remove", "screen"))
    assert (again["after"], gone["after"]) == (gone["before"], current(paths).id)
    assert {one["name"] for one in gone["changes"]} == {"screen", "libutempter0"}
    assert current(paths).manifest.tree == first.manifest.tree
    assert [one["action"] for one in document(apt(paths, "history"))] == ["install", "undo 1", "install", "remove"]
