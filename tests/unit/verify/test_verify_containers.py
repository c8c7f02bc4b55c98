"""The checks of containers and of a swarm, with a cluster that answers as told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.verify import containers
from kestrelpi.verify.site import CheckFailed
from tests.unit.verify.test_verify_checks import Told, told

RIGHT = "fibo(40) = 102334155\ntime: 1.0 s, threads: 1\n"
IMAGE = "frontend:5000/kestrelpi/fibo:verify"
LIMITED = "33554432\n50000 100000\nnr_throttled 21\nstatus 137\n"
CONTAINER = {
    rf"rpi1: docker build --quiet --tag {IMAGE} ": "sha256:1\n",
    rf"rpi1: docker push --quiet {IMAGE}$": "",
    r"rpi2: docker run .*--memory 64m .* 40$": RIGHT,
    r"rpi2: .* cat /sys.* dd ": LIMITED,
}
DONE = "rpi1 Complete 3 seconds ago \n" * 2 + "rpi2 Complete 1 second ago \n"
SWARM = {
    "docker info": "2 active \n",
    "node ls": "rpi1 Ready\nrpi2 Ready\nelsewhere Down\n",
    "docker (build|push)": "",
    "service ls": "",
    "service create": "id\n",
    "service ps": DONE,
    "service logs": RIGHT * 3,
    "service rm": "",
}


def swarm(tmp_path: Path, answers: dict[str, str], manager: str = "") -> Told:
    return told(tmp_path, SWARM | answers, f"swarm], options: {{swarm: {{manager: '{manager}'}}}}, packages: [")


def test_a_container_is_built_here_and_run_there(tmp_path: Path) -> None:
    site = told(tmp_path, CONTAINER, "docker")
    assert containers.container(site) == "built on rpi1 in 0 s, run on rpi2; limits of memory and CPU hold"
    assert [command[:4] for command in site.asked] == ["rpi1", "rpi1", "rpi2", "rpi2"]


@pytest.mark.parametrize(
    ("asked", "answer", "what"),
    [
        (
            r"rpi2: docker run .*--memory 64m .* 40$",
            RIGHT.replace("155", "156"),
            "fibo in a container on rpi2 is wrong",
        ),
        (r"rpi2: .* cat /sys.* dd ", LIMITED.replace("33554432", "max"), "other limits than it was given"),
        (r"rpi2: .* cat /sys.* dd ", LIMITED.replace("50000", "max"), "other limits than it was given"),
        (r"rpi2: .* cat /sys.* dd ", LIMITED.replace("21", "0"), "more of a CPU than its limit"),
        (r"rpi2: .* cat /sys.* dd ", LIMITED.replace("137", "0"), "more memory than its limit"),
    ],
)
def test_a_container_that_is_not_as_it_should_be(tmp_path: Path, asked: str, answer: str, what: str) -> None:
    with pytest.raises(CheckFailed, match=what):
        containers.container(told(tmp_path, CONTAINER | {asked: answer}, "docker"))


def test_a_job_of_the_swarm_computes(tmp_path: Path) -> None:
    site = swarm(tmp_path, {})
    assert containers.swarm(site) == "all nodes are ready; fibo 40 = 102334155 by 3 tasks on rpi1, rpi2"
    [create] = [command for command in site.asked if "service create" in command]
    assert "--mode replicated-job --replicas 3" in create
    assert all(command.startswith("rpi1: ") for command in site.asked)
    assert "service rm" in site.asked[-1]


def test_the_swarm_is_asked_where_it_is_managed(tmp_path: Path) -> None:
    assert all(command.startswith("rpi2: ") for command in _managed(swarm(tmp_path, {}, "rpi2")))
    managed = _managed(swarm(tmp_path / "other", {}, "frontend"))
    assert all(command.startswith("frontend: sh -c docker ") for command in managed)
    with pytest.raises(CheckFailed, match="rpi7 is to manage the swarm, but is no node"):
        containers.swarm(swarm(tmp_path / "third", {}, "rpi7"))


def _managed(site: Told) -> list[str]:
    """What the swarm's manager is asked; the image is made elsewhere."""
    containers.swarm(site)
    return [command for command in site.asked if "docker build" not in command and "docker push" not in command]


def test_every_node_must_be_in_the_swarm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert containers.not_ready("rpi1 Ready\nrpi2 Ready\n", {"rpi1", "rpi2"}) == []
    bad = containers.not_ready("rpi1 Ready\nrpi1 Down\nrpi3 Down\n", {"rpi1", "rpi2", "rpi3"})
    assert bad == ["rpi1 Ready and Down", "rpi2 is not in it", "rpi3 Down"]
    monkeypatch.setattr(containers, "READY_WITHIN", 0.0)
    with pytest.raises(CheckFailed, match="rpi2 is not in it") as failed:
        containers.swarm(swarm(tmp_path, {"node ls": "rpi1 Ready\n"}))
    assert failed.value.fix == "kestrelpi nodes ssh rpi2 journalctl -u kestrelpi-swarm"


def test_a_swarm_that_is_not_made_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = swarm(tmp_path, {"docker info": "0 inactive \n", "node ls": "FAIL"})
    slept: list[float] = []

    def made(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            site.answers.update({"docker info": "2 active \n", "node ls": "rpi1 Ready\nrpi2 Ready\n"})

    monkeypatch.setattr(time, "sleep", made)
    containers.swarm(site)
    assert len(slept) == 3


@pytest.mark.parametrize(
    ("manager", "what", "fix"),
    [
        ("", "rpi1 manages no swarm", "kestrelpi nodes ssh rpi1 journalctl -u kestrelpi-swarm"),
        ("frontend", "frontend manages no swarm", "kestrelpi reconfigure --frontend"),
    ],
)
def test_a_swarm_that_is_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: str, what: str, fix: str
) -> None:
    monkeypatch.setattr(containers, "READY_WITHIN", 0.0)
    monkeypatch.setattr(containers, "POLL", 0.0)
    with pytest.raises(CheckFailed, match=rf"{what} \(error no leader\)") as failed:
        containers.swarm(swarm(tmp_path, {"docker info": "0 error no leader\n"}, manager))
    assert failed.value.fix == fix


@pytest.mark.parametrize(
    ("asked", "answer", "what"),
    [
        ("service ps", DONE.replace("rpi2 Complete", "rpi2 Failed"), "2 of 3 tasks of a job are complete"),
        ("service ps", "rpi1 Rejected 1 second ago No such image\n" * 3, "0 of 3 tasks"),
        ("service logs", RIGHT * 2, "2 of 3 results in a job's logs are right"),
    ],
)
def test_a_job_that_fails_is_told_and_taken_away(tmp_path: Path, asked: str, answer: str, what: str) -> None:
    site = swarm(tmp_path, {asked: answer})
    with pytest.raises(CheckFailed, match=what):
        containers.swarm(site)
    assert "service rm" in site.asked[-1]


def test_a_job_that_an_earlier_run_left_goes_first(tmp_path: Path) -> None:
    site = swarm(tmp_path, {"service ls": "old\n"})
    containers.swarm(site)
    commands = [
        command.removeprefix("rpi1: docker service ").split()[0] for command in site.asked if "service" in command
    ]
    assert commands == ["ls", "rm", "create", "ps", "logs", "rm"]


def test_an_error_of_docker_is_the_checks_failure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it failed"):
        containers.container(told(tmp_path, {"docker build": "FAIL"}, "docker"))
