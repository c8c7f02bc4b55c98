"""What the lab knows of its Pis."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kestrelpi.config import parse
from kestrelpi.errors import UserError
from kestrelpi.lab import ready
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.network import LabNetwork, lab_name
from kestrelpi.lab.state import PiFolder, PiState, State, born
from kestrelpi.paths import Paths


def state(pid: int, ticks: int) -> PiState:
    return PiState(1, "4", "dc:a6:32:00:00:01", "01020304", State.RUNNING, 1000.0, pid, ticks, boots=2, detail="x")


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = PiFolder(tmp_path)
    written = state(os.getpid(), born(os.getpid()))
    folder.write_state(written)
    assert folder.read_state() == written
    assert folder.read_state().now() == written


def test_a_dead_supervisor_is_seen() -> None:
    assert state(os.getpid(), born(os.getpid()) + 1).now().state is State.GONE
    assert state(2**22 + 1, 5).now().state is State.GONE


def test_no_such_pi(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such Pi"):
        PiFolder(tmp_path / "pi-7").read_state()


def test_last_line_of_the_console(tmp_path: Path) -> None:
    folder = PiFolder(tmp_path)
    assert folder.last_line() == ""
    folder.console.write_bytes(b"x" * 20000 + b"\r\nrpi1 \x1b[0mlogin: \r\n\r\n\xff\x00")
    assert folder.last_line().endswith("\ufffd")
    folder.console.write_bytes(b"x" * 20000 + b"\r\n\x1b[K[\x1b[0;32m  OK  \x1b[0m] rpi1 \x1b7login: \r\n\r\n")
    assert folder.last_line() == "[  OK  ] rpi1 login:"


PANIC = """\
--- 4 dc:a6:32:00:00:01: loader
GET vmlinuz
--- 4 dc:a6:32:00:00:01: running
[    9.1] \x1b[32mRun /init as init process\x1b[0m
oh no
[    9.3] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100
[    9.3] CPU: 0 PID: 1 Comm: init
[    9.3] Rebooting in 30 seconds..
"""
NEXT = """\
--- 4 dc:a6:32:00:00:01: reset

--- 4 dc:a6:32:00:00:01: loader
GET vmlinuz
"""


def test_last_words_are_those_before_the_trace_of_a_panic(tmp_path: Path) -> None:
    folder = PiFolder(tmp_path)
    assert folder.last_words() == ""
    folder.console.write_text("GET start4.elf\nGET vmlinuz\n")
    assert folder.last_words() == "GET start4.elf\nGET vmlinuz"
    folder.console.write_text(PANIC)
    panicked = folder.last_words().splitlines()
    assert panicked[-2:] == ["oh no", PANIC.splitlines()[5]]
    assert panicked[-3] == "[    9.1] Run /init as init process"
    folder.console.write_text(PANIC + NEXT)
    assert folder.last_words().splitlines() == panicked, "what the next boot says has nothing to do with it"
    folder.console.write_text(PANIC + NEXT + "watchdog bites\n" + NEXT)
    assert folder.last_words().endswith("GET vmlinuz\nwatchdog bites")


class Fake(Lab):
    """A lab whose Pis are what a test says."""

    now: PiState

    def states(self) -> list[PiState]:
        return [self.now]


@pytest.mark.parametrize(
    ("what", "boots", "said"),
    [
        (State.RUNNING, 1, ""),
        (State.LOADER, 1, ""),
        (State.RUNNING, 2, "was reset while it booted"),
        (State.LOADER, 2, "was reset while it booted"),
        (State.OFF, 1, "is off: x"),
        (State.DEAD, 1, "is dead: x"),
    ],
)
def test_a_pi_that_begins_again_has_failed(tmp_path: Path, what: State, boots: int, said: str) -> None:
    lab = Fake(Paths(tmp_path), parse(""))
    lab.now = replace(state(1, 1), state=what, boots=boots)
    lab.folder_of(1).path.mkdir(parents=True)
    lab.folder_of(1).console.write_text(PANIC)
    if not said:
        lab.must_not_have_failed()
        return
    with pytest.raises(UserError, match=said) as caught:
        lab.must_not_have_failed()
    assert "Kernel panic" in caught.value.detail


@pytest.mark.parametrize("what", list(State))
def test_patience_ends_when_there_is_no_other_try(tmp_path: Path, what: State) -> None:
    lab = Fake(Paths(tmp_path), parse(""))
    lab.now = replace(state(1, 1), state=what, boots=2)
    lab.folder_of(1).path.mkdir(parents=True)
    lab.folder_of(1).console.write_text(PANIC)
    if what in (State.DEAD, State.BROKEN, State.GONE):
        with pytest.raises(UserError, match=f"is {what}: x"):
            lab.must_not_have_failed(patient=True)
    else:
        lab.must_not_have_failed(patient=True)


def test_two_roots_have_two_labs(tmp_path: Path) -> None:
    names = {lab_name(tmp_path / "a"), lab_name(tmp_path / "b"), lab_name(Path("/"))}
    assert len(names) == 3
    assert lab_name(tmp_path / "a") == lab_name(tmp_path / "b" / ".." / "a")


def test_names_fit_the_kernel() -> None:
    network = LabNetwork(lab_name(Path("/")))
    assert all(len(name) <= 15 for name in (network.tap(200), network.port(200)))
    assert network.of(12) == f"{network.namespace}-12"


def test_a_lab_that_is_not_up(tmp_path: Path) -> None:
    lab = Lab(Paths(tmp_path), parse(""))
    with pytest.raises(UserError, match="not up"):
        lab.states()
    with pytest.raises(UserError, match="no such Pi"):
        lab.power(1, "on")


def test_ports_that_a_boot_needs() -> None:
    config = parse("services: {http: {port: 8068}, nfs: {port: 2050}}")
    assert ready.ports(config) == {"dhcp": 67, "tftp": 69, "http": 8068, "nfs": 2050}
    alone = parse("services: {dhcp: {backend: none}, nfs: {backend: none}}")
    assert ready.ports(alone) == {"tftp": 69, "http": 8067}
