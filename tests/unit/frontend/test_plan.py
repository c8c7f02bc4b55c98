"""What reconfigure decides, and that doing it twice does nothing the second time."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kestrelpi import config
from kestrelpi.errors import UserError
from kestrelpi.frontend.changes import Content
from kestrelpi.frontend.machine import Machine, serving
from kestrelpi.paths import Paths
from kestrelpi.reconfigure import Frontend, Plan, Selection, carry_out, default_configuration, make_plan

CONFIG = config.parse("images: {default: {modules: []}, other: {modules: []}}\n")
CONTAINER = Machine(systemd=False, nfs="ganesha", program="/usr/bin/kestrelpi", privileged=False)
DEBIAN = Machine(systemd=True, nfs="kernel", program="/usr/bin/kestrelpi", privileged=True)
ALL = Selection(frontend=True, images=("default", "other"))
STAGED = {"/etc/hosts": Content(b"10.77.0.1 frontend\n")}


@dataclass
class FakeImages:
    """Images with reasons to be built; building one leaves it without."""

    reasons: dict[str, Sequence[str] | None] = field(default_factory=dict)
    built: list[tuple[str, bool]] = field(default_factory=list)
    broken: bool = False

    def stale(self, image: str) -> Sequence[str] | None:
        return self.reasons.get(image, ())

    def build(self, image: str, force: bool) -> str:
        if self.broken:
            raise UserError("the script 50-x failed")
        self.built.append((image, force))
        self.reasons[image] = ()
        return "20261122-013000-1a2b3c4d"


def front(tmp_path: Path, images: FakeImages, serving: int | None = None, machine: Machine = CONTAINER) -> Frontend:
    return Frontend(Paths(tmp_path), CONFIG, machine, serving, images)


def done(front: Frontend, plan: Plan, selection: Selection = ALL) -> list[str]:
    said: list[str] = []
    carry_out(front, plan, selection, lambda what, seconds: said.append(what))
    return said


def test_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    images = FakeImages({"default": ["90-motd changed"]})
    place = front(tmp_path, images)
    plan = make_plan(place, ALL, STAGED)
    assert not plan.empty
    assert done(place, plan) == ["make /etc/hosts", "image default: generation 20261122-013000-1a2b3c4d"]
    assert (tmp_path / "etc/hosts").read_bytes() == b"10.77.0.1 frontend\n"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = make_plan(place, ALL, STAGED)
    assert again.empty
    assert again.remarks == ()
    assert done(place, again) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert images.built == [("default", False)]


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    make_plan(front(tmp_path, FakeImages({"default": ["x"]})), ALL, STAGED)
    assert list(tmp_path.iterdir()) == []


def test_force_does_all_again(tmp_path: Path) -> None:
    images = FakeImages()
    place = front(tmp_path, images)
    done(place, make_plan(place, ALL, STAGED))
    forced = replace(ALL, force=True)
    plan = make_plan(place, forced, STAGED)
    assert [change.name for change in plan.files] == ["/etc/hosts"]
    assert plan.images == {"default": ("forced",), "other": ("forced",)}
    done(place, plan, forced)
    assert images.built == [("default", True), ("other", True)]


def test_selection(tmp_path: Path) -> None:
    images = FakeImages({"default": ["x"], "other": ["y"]})
    plan = make_plan(front(tmp_path, images), Selection(frontend=False, images=("other",), named=True), None)
    assert plan.images == {"other": ("y",)}
    assert plan.files == ()


def test_an_image_that_was_never_built(tmp_path: Path) -> None:
    images = FakeImages({"other": None})
    assert make_plan(front(tmp_path, images), ALL, STAGED).remarks[0] == (
        "the image other has never been built; build it with: kestrelpi images build other"
    )
    with pytest.raises(UserError, match="the image other has never been built"):
        make_plan(front(tmp_path, images), Selection(frontend=False, images=("other",), named=True), None)


def test_a_file_that_is_no_longer_staged_goes_only_if_we_made_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n")
    place = front(tmp_path, FakeImages())
    both = {**STAGED, "/etc/exports.d/kestrelpi.exports": Content(b"x\n")}
    done(place, make_plan(place, ALL, both))
    plan = make_plan(place, ALL, {})
    assert [(change.kind, change.name) for change in plan.files] == [("remove", "/etc/exports.d/kestrelpi.exports")]
    done(place, plan)
    assert (tmp_path / "etc/hosts").exists()
    assert make_plan(place, ALL, {}).empty


def test_a_failed_build_keeps_what_was_done_and_goes_on_next_time(tmp_path: Path) -> None:
    images = FakeImages({"default": ["x"]}, broken=True)
    place = front(tmp_path, images, serving=os.getpid())
    with pytest.raises(UserError):
        done(place, make_plan(place, ALL, STAGED))
    images.broken = False
    plan = make_plan(place, ALL, STAGED)
    assert (plan.files, list(plan.images)) == ((), ["default"])
    assert plan.reloads, "the services haven't been told yet"


def test_serve_is_told_by_a_signal_and_only_of_news(tmp_path: Path) -> None:
    place = front(tmp_path, FakeImages(), serving=os.getpid())
    plan = make_plan(place, ALL, STAGED)
    heard: list[int] = []
    previous = signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    try:
        assert done(place, plan)[-1] == f"reload kestrelpi serve (process {os.getpid()})"
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert heard == [signal.SIGHUP]
    assert make_plan(place, ALL, STAGED).empty
    other = config.parse("images: {default: {modules: []}, other: {modules: []}}\nservices: {dns: {port: 5353}}\n")
    plan = make_plan(replace(place, config=other), ALL, STAGED)
    assert len(plan.reloads) == 1
    assert plan.remarks == ("network or services changed: end kestrelpi serve and start it again",)


def test_no_serve_no_reload(tmp_path: Path) -> None:
    plan = make_plan(front(tmp_path, FakeImages()), ALL, STAGED)
    assert plan.reloads == ()
    assert plan.remarks == ("kestrelpi serve is not running: nothing to reload",)


def argvs(plan: Plan) -> list[tuple[str, ...]]:
    return [one.argv for one in plan.reloads]


def test_sshd_is_told_of_its_file(tmp_path: Path) -> None:
    staged = {"/etc/ssh/sshd_config.d/60-kestrelpi-users.conf": Content(b"Match all\n")}
    told = ("systemctl", "try-reload-or-restart", "ssh.service")
    assert argvs(make_plan(front(tmp_path, FakeImages(), machine=DEBIAN), ALL, staged))[0] == told
    assert told not in argvs(make_plan(front(tmp_path, FakeImages()), ALL, staged))


def test_systemd_and_exports(tmp_path: Path) -> None:
    place = front(tmp_path, FakeImages(), machine=DEBIAN)
    staged = {
        **STAGED,
        "/etc/exports.d/kestrelpi.exports": Content(b"x\n"),
        "/etc/systemd/system/kestrelpi.service": Content(b"y\n"),
    }
    assert argvs(make_plan(place, ALL, staged)) == [
        ("exportfs", "-r"),
        ("systemctl", "daemon-reload"),
        ("systemctl", "restart", "kestrelpi.service"),
    ]
    quiet = replace(place, machine=replace(DEBIAN, systemd=False, privileged=False))
    done(quiet, make_plan(quiet, ALL, staged))
    assert argvs(make_plan(place, ALL, staged)) == []
    changed = {**staged, "/etc/hosts": Content(b"other\n")}
    with_ports = {**staged, "/etc/nfs.conf.d/kestrelpi.conf": Content(b"z\n")}
    assert argvs(make_plan(place, ALL, with_ports))[0] == ("systemctl", "restart", "nfs-server.service")
    assert argvs(make_plan(place, ALL, changed)) == [("systemctl", "reload-or-restart", "kestrelpi.service")]
    moved = config.parse("images: {default: {modules: []}, other: {modules: []}}\nnetwork: {address: 10.9.0.1/24}\n")
    assert argvs(make_plan(replace(place, config=moved), ALL, staged)) == [
        ("systemctl", "restart", "kestrelpi.service")
    ]


def test_install_scripts_run_only_below_the_real_root(tmp_path: Path) -> None:
    remarks = make_plan(front(tmp_path, FakeImages(), machine=DEBIAN), ALL, STAGED).remarks
    assert remarks[0].startswith("not run yet: 10-packages")
    assert not any("not run" in one for one in make_plan(front(tmp_path, FakeImages()), ALL, STAGED).remarks[1:])


def test_the_default_configuration_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "etc/kestrelpi/kestrelpi.yaml"
    assert default_configuration(path)
    assert config.load(path) == config.Config()
    path.write_text("cluster: mine\n")
    assert not default_configuration(path)
    assert path.read_text() == "cluster: mine\n"


@contextmanager
def held(path: Path) -> Iterator[None]:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_pid_file_is_believed_only_while_it_is_held(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert serving(paths) is None
    paths.run.mkdir(parents=True)
    pid = paths.run / "serve.pid"
    pid.write_text("process 4711\n")
    assert serving(paths) is None, "its process has ended"
    with held(pid):
        assert serving(paths) == 4711
