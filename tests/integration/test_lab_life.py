"""The lab's processes and namespaces: nothing is left behind, whatever is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.errors import UserError
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.state import State
from kestrelpi.paths import Paths
from tests.waiting import until

CONFIG = "network: {address: 10.98.0.1/24}\n"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(Paths(tmp_path), parse(CONFIG), attached=True)
    with made:
        yield made


def wait_until_gone(pids: list[int]) -> None:
    def alive() -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]

    until(lambda: not alive(), lambda: f"the end of {alive()}", 20)


def is_zombie(pid: int) -> bool:
    """Ended, and its parent (which may be this test) hasn't asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for_processes(lab: Lab, count: int) -> list[int]:
    until(lambda: len(lab.network.processes()) >= count, f"{count} processes", 20)
    return lab.network.processes()


def test_down_leaves_nothing_and_can_be_repeated(lab: Lab) -> None:
    lab.up(lab.pis(["3B", "4"]), serve=False)
    assert len(lab.network.namespaces()) == 3
    pids = wait_for_processes(lab, 4)  # two supervisors, two loaders
    lab.down()
    assert lab.network.namespaces() == []
    wait_until_gone(pids)
    lab.down()
    lab.up(lab.pis(["4"]), serve=False)
    assert len(lab.network.namespaces()) == 2


def test_a_second_up_is_refused_and_harms_nothing(lab: Lab) -> None:
    lab.up(lab.pis(["4"]), serve=False)
    with pytest.raises(UserError, match="up already"):
        lab.up(lab.pis(["4"]), serve=False)
    assert [one.state for one in lab.states()] == [State.LOADER]


def test_up_that_fails_half_way_leaves_nothing(lab: Lab) -> None:
    """There is no configuration file, so the services can't start."""
    with pytest.raises(UserError, match="kestrelpi serve ended at once") as error:
        lab.up(lab.pis(["4"]))
    assert "there is no configuration" in str(error.value)
    assert lab.network.namespaces() == []


def test_a_killed_supervisor_takes_its_loader_along(lab: Lab) -> None:
    lab.up(lab.pis(["4"]), serve=False)
    pids = wait_for_processes(lab, 2)
    os.kill(lab.states()[0].pid, signal.SIGKILL)
    wait_until_gone(pids)
    assert [one.state for one in lab.states()] == [State.GONE]
    with pytest.raises(UserError, match="its supervisor was killed"):
        lab.power(1, "cycle")
    lab.down()
    assert lab.network.namespaces() == []


def test_an_attached_lab_dies_with_its_process(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import time
from kestrelpi.config import parse
from kestrelpi.lab.lab import Lab
from kestrelpi.paths import Paths
lab = Lab(Paths(Path({str(tmp_path)!r})), parse({CONFIG!r}), attached=True)
lab.up(lab.pis(["4", "5"]), serve=False)
time.sleep(100)
"""
    lab = Lab(Paths(tmp_path), parse(CONFIG))
    process = run.start([sys.executable, "-c", program])
    try:
        pids = wait_for_processes(lab, 4)
        process.kill()
        wait_until_gone(pids)
    finally:
        run.stop(process)
        lab.down()
    assert lab.network.namespaces() == []


def test_power(lab: Lab) -> None:
    lab.up(lab.pis(["4"]), serve=False)
    lab.power(1, "off")
    assert lab.wait_for(1, State.OFF, 10).boots == 1
    assert wait_for_processes(lab, 1) == [lab.states()[0].pid]
    lab.power(1, "on")
    assert lab.wait_for(1, State.LOADER, 10).boots == 2
    lab.power(1, "on")  # it is on: nothing happens
    lab.power(1, "cycle")
    until(lambda: lab.states()[0].boots >= 3, "the third boot", 10)
    assert lab.states()[0].boots == 3


def test_a_command_runs_where_the_frontend_is(lab: Lab) -> None:
    with pytest.raises(UserError, match="not up"):
        lab.exec(["true"])
    lab.up([], serve=False)
    assert "10.98.0.1/24" in lab.exec(["ip", "-4", "address", "show", "dev", "br0"]).stdout
    with pytest.raises(run.CommandFailed):
        lab.exec(["false"])
