"""`kestrelpi apt`: the list that it writes, what needs a package, what apt says, and the history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.images import apt_history, needs, packages, resolve, wishes
from kestrelpi.images.apt_history import Entry
from kestrelpi.images.compare import Change
from kestrelpi.images.plan import BuildPlan, plan
from kestrelpi.paths import Paths

LIST = """# for the course
htop   # top, but nicer

-nano
python3-numpy
"""
STATUS = """Package: slurmd
Status: install ok installed
Priority: optional
Depends: munge (>= 0.5) | gone, libc6 (>= 2.34), default-mta | mail-transport-agent
Version: 22.05

Package: munge
Status: install ok installed
Priority: optional
Version: 0.5

Package: libc6
Status: install ok installed
Priority: required
Version: 2.36

Package: exim4
Status: install ok installed
Priority: optional
Provides: mail-transport-agent
Version: 4

Package: nullmailer
Status: install ok installed
Priority: optional
Provides: mail-transport-agent (= 1)
Version: 1

Package: left
Status: deinstall ok config-files
Version: 1
"""
SIMULATED = """NOTE: This is only a simulation!
Inst perl-base [5.36.0-7+deb12u3] (5.36.0-7+deb12u4 Debian-Security:12/oldstable-security [arm64])
Inst libssl3 (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [arm64]) []
Inst kestrelpi-initramfs (1 local-deb [all])
Conf libssl3 (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [arm64])
"""


def test_lines_and_remarks_of_a_person_survive() -> None:
    assert wishes.added(LIST, ["btop", "htop"]) == f"{LIST}btop\n"
    assert wishes.added("htop", ["btop"]) == "htop\nbtop\n"
    assert wishes.removed(LIST, ["htop"]) == "# for the course\n\n-nano\npython3-numpy\n"


def test_what_another_list_asks_for_is_taken_out_by_a_line_and_back_by_its_removal() -> None:
    without = wishes.removed(LIST, ["procps"])
    assert without == f"{LIST}-procps\n"
    assert wishes.added(without, ["procps"]) == LIST


def test_undoing_takes_back_only_what_was_done() -> None:
    after = wishes.added(LIST, ["btop"])
    later = wishes.added(after, ["tmux"])
    assert wishes.undone(later, LIST, after) == f"{LIST}tmux\n"
    after = wishes.removed(LIST, ["htop"])
    assert wishes.asked(wishes.undone(after, LIST, after)) == ["-nano", "python3-numpy", "htop"]


def test_the_list_is_one_that_the_packages_phase_reads(tmp_path: Path) -> None:
    path = tmp_path / wishes.NAME
    packages.check_list_name(wishes.NAME, path)
    assert packages.read_lists([(path, wishes.added(LIST, ["btop"]))]).names == ("btop", "htop", "python3-numpy")


def test_who_needs_a_package() -> None:
    there = needs.read(STATUS)
    assert "left" not in there
    assert needs.needed_by("munge", there, ["slurmd"]) == ["slurmd"]
    assert needs.needed_by("munge", there, ["munge"]) == [], "nobody that stays"
    assert needs.needed_by("slurmd", there, []) == []
    assert needs.needed_by("exim4", there, ["slurmd"]) == [], "nullmailer does it too"
    assert there["libc6"].base


def test_what_apt_says_it_would_install() -> None:
    found = [match for line in SIMULATED.splitlines() if (match := resolve.INST.match(line))]
    assert [(one["name"], one["version"], one["arch"]) for one in found] == [
        ("perl-base", "5.36.0-7+deb12u4", "arm64"),
        ("libssl3", "3.0.22-1~deb12u2", "arm64"),
        ("kestrelpi-initramfs", "1", "all"),
    ]
    assert [one["origin"].startswith(resolve.LOCAL) for one in found] == [False, False, True]
    line = "'http://x.example/pool/r/raspi_1%2bds-1_all.deb' raspi-firmware_1%3a1.2022+ds-1_all.deb 48 SHA256:00"
    match = resolve.DOWNLOAD.match(line)
    assert match
    assert (match["name"], match["version"], match["arch"]) == ("raspi-firmware", "1%3a1.2022+ds-1", "all")


def a_plan(root: Path, packages: str) -> BuildPlan:
    text = f"""
build: {{mirror: "http://mirror.example/debian"}}
images: {{default: {{suite: bookworm, modules: [], packages: [{packages}]}}}}
"""
    return plan(Paths(root), config.parse(text), "default", "kestrelpi.yaml", apt=root / "etc/apt")


def test_a_package_that_there_is_not_is_refused_with_names_like_it(tmp_path: Path) -> None:
    index, mine = tmp_path / "Packages", tmp_path / "etc/kestrelpi/node/packages.d/mine"
    index.write_text("Package: htop\nVersion: 1\n\nPackage: exim4\nVersion: 1\nProvides: mail-transport-agent, x\n")
    mine.parent.mkdir(parents=True)
    mine.write_text("# tools\nhtpo\n")
    indexes = resolve.Indexes(((index, "debian"),), 0)

    def check(made: BuildPlan, *names: str) -> None:
        resolve.check_names(replace(made, wanted=packages.Wanted(names)), indexes)

    made = a_plan(tmp_path, "btpo")
    check(made, "htop", "x", "mail-transport-agent", "htop/trixie-backports")
    for name, where in (("htpo", f"{mine}:2"), ("btpo", "images.default.packages"), ("hhtop", "")):
        with pytest.raises(UserError, match=f"there is no package '{name}'") as caught:
            check(made, name)
        assert caught.value.where == where
        assert "htop" in caught.value.fix or name == "btpo"


def test_the_history_is_numbered_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with pytest.raises(UserError, match="empty"):
        apt_history.find(path, None)
    entry = Entry(
        0, "2026", "ana", "install", ("htop",), "a", "b", (Change("htop", "", "3"),), "", "htop\n", {"x": "y"}
    )
    assert apt_history.append(path, entry).id == 1
    assert apt_history.append(path, entry).id == 2
    assert apt_history.find(path, None).id == 2
    assert apt_history.find(path, 1).changes == (Change("htop", "", "3"),)
    with pytest.raises(UserError, match="no entry 3"):
        apt_history.find(path, 3)
