"""The checks of `kestrelpi verify`, with a cluster that answers as told."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.config import parse
from kestrelpi.errors import UserError
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from kestrelpi.verify import checks
from kestrelpi.verify.checks import CHECKS, Check, carry_out
from kestrelpi.verify.site import CheckFailed, Site

NODES = tuple(Node(f"rpi{n}", f"dc:a6:32:00:00:0{n}", "rpi", IPv4Address(f"10.77.0.1{n}")) for n in (1, 2))


@dataclass(frozen=True)
class Told(Site):
    """Answers by the first pattern that a command matches."""

    answers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def _answer(self, command: str) -> str:
        self.asked.append(command)
        for pattern, answer in self.answers.items():
            if re.search(pattern, command):
                if answer == "FAIL":
                    raise UserError("it failed")
                return answer
        raise AssertionError(f"nobody said what answers to {command}")

    def frontend(self, words: Sequence[str], stdin: str | None = None) -> str:
        return self._answer("frontend: " + " ".join(words) + f" <{stdin}" * bool(stdin))

    def node(self, node: Node, command: str, stdin: str | None = None) -> str:
        return self._answer(f"{node.name}: {command}" + f" <{stdin}" * bool(stdin))


def told(tmp_path: Path, answers: dict[str, str], modules: str = "slurm, openmpi") -> Told:
    config = parse(f"images: {{default: {{modules: [{modules}]}}}}")
    return Told(NODES, Connections(Paths(tmp_path), config, list), answers)


def test_nodes_must_have_their_names(tmp_path: Path) -> None:
    assert checks.ssh(told(tmp_path, {"rpi1": "rpi1\n", "rpi2": "rpi2\n"})) == "2 nodes answer by their names"
    with pytest.raises(CheckFailed, match=r"10.77.0.12 calls itself rpi1, it should be rpi2"):
        checks.ssh(told(tmp_path, {"rpi": "rpi1\n"}))


def test_a_clock_that_is_off(tmp_path: Path) -> None:
    now = time.time()
    assert checks.clocks(told(tmp_path, {"date": f"{now + 0.3}"}, "")).startswith("within")
    for off in (-40, 40):
        with pytest.raises(CheckFailed, match="a clock is off by"):
            checks.clocks(told(tmp_path, {"rpi1": f"{now}", "rpi2": f"{now + off}"}, ""))


def test_the_memory_cgroup_must_be_there(tmp_path: Path) -> None:
    checks.cgroups(told(tmp_path, {"cgroup": "cpuset cpu io memory pids\n"}))
    with pytest.raises(CheckFailed, match="rpi2 lacks memory"):
        checks.cgroups(told(tmp_path, {"rpi1": "cpuset cpu memory", "rpi2": "cpuset cpu io"}))


def test_munge_is_tried_both_ways(tmp_path: Path) -> None:
    good = {
        r"frontend: munge .*--socket=.*/run/munge": "OURS",
        r": unmunge <OURS": "STATUS:          Success (0)",
        r": munge --no-input": "THEIRS",
        r"frontend: unmunge .* <THEIRS": "STATUS:           Success (0)",
    }
    site = told(tmp_path, good)
    assert checks.munge(site) == "2 nodes and the frontend decode each other"
    assert len(site.asked) == 8
    for pattern in (r": unmunge <OURS", r"frontend: unmunge .* <THEIRS"):
        with pytest.raises(CheckFailed, match="credential"):
            checks.munge(told(tmp_path, {**good, pattern: "STATUS: Invalid credential" if "THEIRS" in pattern else ""}))


def test_slurm_must_offer_every_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.slurm_nodes(told(tmp_path, {"sinfo": "rpi1 idle\nrpi2 mixed\n"})) == "2 nodes are offered"
    monkeypatch.setattr(checks, "IDLE_WITHIN", 0.0)
    answers = {"list-reasons": "kestrelpi: no clock", "sinfo": "rpi1 idle\nrpi2 drained\n"}
    with pytest.raises(CheckFailed, match="does not offer rpi2 drained") as caught:
        checks.slurm_nodes(told(tmp_path, answers))
    assert caught.value.detail == "kestrelpi: no clock"
    with pytest.raises(CheckFailed, match="rpi2 unknown"):
        checks.slurm_nodes(told(tmp_path, {"list-reasons": "", "sinfo": "rpi1 idle\n"}))


def test_results_of_srun_are_counted(tmp_path: Path) -> None:
    right = "fibo(40) = 102334155\ntime: 1.0 s, threads: 4\n"
    assert "2 nodes at once" in checks.srun(told(tmp_path, {"srun": right * 2}))
    with pytest.raises(CheckFailed, match="1 of 2 results are right"):
        checks.srun(told(tmp_path, {"srun": right + right.replace("155", "156")}))


def test_mpi_must_run_on_two_nodes_as_one_job(tmp_path: Path) -> None:
    said = "fibo(40) = 102334155\ntime: 1 s, ranks: 2\nrank 0 on rpi1: 1 s\nrank 1 on rpi2: 1 s\n"
    assert checks.mpi(told(tmp_path, {"srun --mpi=pmix": said})) == "fibo-mpi 40 by 2 ranks on rpi1, rpi2"
    for wrong in (said.replace("rpi2", "rpi1"), said.replace("ranks: 2", "ranks: 1"), said.replace("155", "0")):
        with pytest.raises(CheckFailed):
            checks.mpi(told(tmp_path, {"srun": wrong}))


def test_only_checks_of_enabled_modules_run_and_the_others_say_why(tmp_path: Path) -> None:
    ran: list[str] = []

    def check(name: str, module: str) -> Check:
        return Check(name, lambda site: ran.append(name) or name, module)  # type: ignore[func-returns-value]

    some = (check("a", ""), check("b", "slurm"), check("c", "openmpi"))
    results = list(carry_out(some, told(tmp_path, {}, "slurm")))
    assert [result.name for result in results if not result.skipped] == ran == ["a", "b"]
    assert results[2].skipped
    assert results[2].detail == "no node's image has the module openmpi"
    assert all(result.ok for result in results)


def test_a_failure_is_told_and_the_others_go_on_unless_it_is_vital(tmp_path: Path) -> None:
    def fail(site: Site) -> str:
        raise CheckFailed("no")

    some = (
        Check("a", fail),
        Check("b", lambda site: "fine"),
        Check("c", fail, vital=True),
        Check("d", lambda site: ""),
    )
    results = list(carry_out(some, told(tmp_path, {})))
    assert [(result.name, result.ok, result.detail) for result in results] == [
        ("a", False, "no"),
        ("b", True, "fine"),
        ("c", False, "no"),
    ]


def test_an_error_on_one_node_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="rpi2: it failed"):
        checks.health(told(tmp_path, {"rpi1": "", "rpi2": "FAIL"}))


def test_ssh_comes_first_and_is_vital() -> None:
    assert (CHECKS[0].name, CHECKS[0].vital) == ("ssh", True)
