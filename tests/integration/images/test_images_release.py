"""What refuses a real generation, and what shells inside an image leave behind."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images import capabilities
from kestrelpi.images.layers import DRAFT
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths
from kestrelpi.releasing import making, outcome
from kestrelpi.releasing.lint import lint
from kestrelpi.releasing.outcome import CheckOutcome, Outcome
from tests.program import program

from . import support


def never(generation: Generation) -> Outcome:
    raise AssertionError("nothing asks for a test")


def make(paths: Paths) -> making.Made:
    return making.make(paths, config.load(paths.config), "default", attempt=never)


def kestrelpi(paths: Paths, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = program(paths.root, *words)
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=120)


def settings(paths: Paths, groups: str, image: str = "") -> None:
    text = paths.config.read_text().partition("groups:")[0]
    paths.config.write_text(text.replace("  default:\n", f"  default:\n{image}") + f"groups: {groups}\n")


def test_a_generation_that_a_named_pi_could_not_boot_is_refused(paths: Paths) -> None:
    """Bookworm's kernel knows no Pi 5."""
    settings(paths, "{rpi: {models: [3B, 3B+, 4B, '400', CM4]}}")
    good = make(paths)
    assert good.warnings == ()
    assert lint(paths, config.load(paths.config), good.generation) == []
    settings(paths, "{rpi: {models: ['5']}}", "    timezone: Europe/Madrid\n")
    with pytest.raises(UserError, match=r"a Pi 5 .* could not boot: no device tree") as caught:
        make(paths)
    assert "trixie-backports" in caught.value.fix
    store = Store(paths)
    assert store.generations("default") == [good.generation]
    assert store.current("default") == good.generation
    assert not [*store.folder("default").glob(f"{DRAFT}*")]
    said = kestrelpi(paths, "--json", "images", "lint", "default")
    assert said.returncode == 1
    assert {flaw["about"] for flaw in json.loads(said.stdout)["flaws"]} == {"5"}


def test_a_generation_that_was_damaged_is_not_published(paths: Paths) -> None:
    made = make(paths).generation
    assert kestrelpi(paths, "images", "lint", "default").returncode == 0
    (made.boot / "start4cd.elf").unlink()  # a hard link: other generations have the same file
    (made.boot / "start4cd.elf").write_bytes(b"x")
    said = kestrelpi(paths, "images", "publish", "default", made.id)
    assert said.returncode == 1
    assert "start4cd.elf is not the file that was built" in said.stderr


def test_capabilities_that_nfs_would_lose_are_listed_in_the_root(paths: Paths) -> None:
    settings(paths, "{rpi: {}}", "    root: nfs\n")
    made = make(paths).generation
    found = capabilities.find(made.root)
    assert found == {"usr/bin/ping": "cap_net_raw=ep"}
    assert capabilities.read_list(made.root) == found
    (made.root / capabilities.LIST).unlink()
    assert [flaw.check for flaw in lint(paths, config.load(paths.config), made)] == ["capabilities"]


def test_only_what_passed_its_test_becomes_current_and_nothing_is_built_twice(paths: Paths) -> None:
    first = make(paths).generation
    settings(paths, "{rpi: {}}", "    timezone: Europe/Madrid\n    publish: tested\n")
    results = [
        Outcome("", "4", {}, (CheckOutcome("units", False, 1.0, "rpi1: x.service failed"),)),
        Outcome("", "4", {}, (CheckOutcome("boot", True, 1.0, ""),)),
    ]
    tried: list[str] = []

    def attempt(generation: Generation) -> Outcome:
        tried.append(generation.id)
        outcome.keep(generation, results[len(tried) - 1])
        return results[len(tried) - 1]

    loaded = config.load(paths.config)
    with pytest.raises(UserError, match="is not published: it failed units"):
        making.make(paths, loaded, "default", attempt=attempt)
    assert Store(paths).current("default") == first
    made = making.make(paths, loaded, "default", attempt=attempt).generation
    assert tried == [made.id, made.id]
    assert Store(paths).current("default") == made
    assert len(Store(paths).generations("default")) == 2


CHANGES = """
echo "by hand" >/etc/motd
rm /etc/networks
rm -r /etc/skel && mkdir /etc/skel && chmod 0700 /etc/skel
ln -s /etc/motd /etc/a-link
chown 7:7 /etc/issue && chmod 4755 /etc/issue
printf '\\0' >/etc/bytes
echo noise >/var/log/noise
"""


def test_what_is_done_by_hand_becomes_a_script_of_the_next_build(paths: Paths) -> None:
    make(paths)
    said = kestrelpi(paths, "images", "shell", "default", "--save", "80-by-hand", stdin=CHANGES)
    assert said.returncode == 0, said.stderr
    script = paths.etc / "images/default/configure.d/80-by-hand"
    assert "overlays/node/etc/bytes" in script.read_text()
    assert "noise" not in script.read_text()
    root = make(paths).generation.root
    assert (root / "etc/motd").read_text() == "by hand\n"
    assert not (root / "etc/networks").exists()
    assert [*(root / "etc/skel").iterdir()] == []
    assert (root / "etc/skel").stat().st_mode & 0o7777 == 0o700
    assert (root / "etc/a-link").readlink() == Path("/etc/motd")
    issue = (root / "etc/issue").stat()
    assert (issue.st_mode & 0o7777, issue.st_uid, issue.st_gid) == (0o4755, 7, 7)
    again = kestrelpi(paths, "images", "shell", "default", "--save", "80-by-hand")
    assert "there is such a script already" in again.stderr
    assert not [*paths.cache.glob("shell-*")]


def test_a_failed_script_says_how_to_look_around_where_it_failed(paths: Paths) -> None:
    script = paths.etc / "node/configure.d/95-fails.chroot"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n# needs: KESTRELPI_IMAGE\necho half >/etc/half\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(UserError, match=r"configure 95-fails\.chroot failed with status 3") as caught:
        make(paths)
    command = "kestrelpi images shell default --at configure/95-fails.chroot"
    assert command in caught.value.fix
    asked = "uname -m; echo $KESTRELPI_IMAGE; cat /etc/timezone; ls /etc/half; cat /run/kestrelpi/95-fails.chroot"
    said = kestrelpi(paths, *command.split()[1:], stdin=asked)
    assert said.stdout.splitlines()[:3] == ["aarch64", "default", "Etc/UTC"]
    assert "exit 3" in said.stdout
    assert "cannot access '/etc/half'" in said.stderr
    assert support.mounts_below(paths.root) == []


def test_on_a_terminal_a_user_is_asked_whether_to_keep_what_was_done(paths: Paths) -> None:
    """The shell inside had the terminal's foreground: who asks next must have it again."""
    make(paths)
    argv = program(paths.root, "images", "shell", "default")
    typed = "echo by hand >/etc/motd; exit\ny\n"
    command = ["script", "--quiet", "--return", "--command", shlex.join(argv), "/dev/null"]
    said = subprocess.run(command, input=typed, capture_output=True, text=True, check=False, timeout=120)
    assert "written  /etc/motd" in said.stdout
    assert "Keep this as" in said.stdout
    assert said.returncode == 0, said.stdout
    script = paths.etc / "images/default/configure.d/80-by-hand"
    assert "by hand" in script.read_text()
