"""`kestrelpi apt` on a real image: what would change, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from kestrelpi.images import wishes
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
