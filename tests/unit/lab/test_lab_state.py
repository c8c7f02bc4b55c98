"""What the lab knows of its Pis."""

from __future__ import annotations

import os
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
