"""`kestrelpi apt` on a real image: what would change, what is refused, and once for real."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from kestrelpi.images import wishes
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

from . import support


def apt(paths: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kestrelpi", "--root", str(paths.root), "--json", "apt", *words]
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


def test_a_package_is_installed_and_taken_back(paths: Paths) -> None:
    paths.config.write_text(paths.config.read_text().replace("[openmp, openmpi, slurm]", "[openmp]"))
    before, _ = support.make(paths)
    path = wishes.path_of(paths, "default")
    path.parent.mkdir(parents=True)
    path.write_text("# mine\n")
    entry = document(apt(paths, "install", "hello"))
    after = Store(paths).current("default")
    assert after is not None
    assert (entry["before"], entry["after"]) == (before.id, after.id)
    assert [one["name"] for one in entry["changes"]] == ["hello"]
    assert path.read_text() == "# mine\nhello\n"
    assert (after.root / "usr/bin/hello").is_file()
    undone = document(apt(paths, "undo"))
    assert undone["action"] == "undo 1"
    assert [(one["name"], one["new"]) for one in undone["changes"]] == [("hello", "")]
    assert path.read_text() == "# mine\n"
    back = Store(paths).current("default")
    assert back is not None
    assert back.manifest.tree == before.manifest.tree
    assert [one["action"] for one in document(apt(paths, "history"))] == ["install", "undo 1"]
