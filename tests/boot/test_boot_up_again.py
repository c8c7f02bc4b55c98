"""Two Pis come up again, one after a crash under its job, one after a reboot: each is itself, with every module."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from kestrelpi.nodes import boots
from kestrelpi.nodes.registry import Node
from kestrelpi.verify.containers import wait_for_swarm
from tests.boot.conftest import Cluster, TwoPis, until
from tests.boot.test_boot_cluster import IDENTITY
from tests.program import program

BOOT = "cat /proc/sys/kernel/random/boot_id"
ENTRIES = "docker node ls --format '{{.ID}} {{.Hostname}}' | sort"
"""The swarm's nodes."""
JOB = """\
#!/bin/bash
#SBATCH --requeue --output=dies.out
date +%s >>deaths
if [ $(wc -l <deaths) = 1 ]; then sleep 3600; fi
fibo 25
"""
"""The first run waits for its node's death; only the second computes."""
CRASH = "echo 1 >/proc/sys/kernel/sysrq; systemd-run --on-active=1 sh -c 'echo b >/proc/sysrq-trigger'"
"""As if the power failed: no shutdown, no word to anybody."""


@dataclass(frozen=True)
class UpAgain:
    """Both are ready again."""

    cluster: Cluster
    rebooted: Node
    """It manages the swarm."""
    crashed: Node
    job: str
    """Of anna's, on the node that crashed."""
    before: dict[str, dict[str, str]]
    """A question → node's name → its answer before."""
    entries: str
    """The swarm's, before."""

    def now(self, question: str) -> dict[str, str]:
        return answers(self.cluster, [self.rebooted, self.crashed], question)


@pytest.fixture(scope="module")
def again(two: TwoPis, anna: None) -> UpAgain:
    cluster, (rebooted, crashed) = two.cluster, two.nodes
    assert wait_for_swarm(cluster.site, two.nodes) == rebooted
    cluster.ssh(rebooted, f"docker node update --label-add seat=window {crashed.name}")
    before = {question: answers(cluster, two.nodes, question) for question in (IDENTITY, BOOT)}
    entries = cluster.ssh(rebooted, ENTRIES)
    home = cluster.paths.root / "home/cluster/anna"
    (home / "dies.sbatch").write_text(JOB)
    job = cluster.as_anna(rebooted, f"sbatch --parsable --nodelist={crashed.name} dies.sbatch")
    until((home / "deaths").exists, "the job's start")
    for node in two.nodes:
        cluster.ssh(node, "touch /root/forgotten")
    boots_before = boots_of(two)
    cluster.ssh(crashed, CRASH)
    argv = program(cluster.paths.root, "--json", "nodes", "reboot", rebooted.name)
    assert json.loads(cluster.lab.exec(argv).stdout) == [{"name": rebooted.name, "state": "rebooted", "error": ""}]
    until(lambda: all(count > boots_before[mac] for mac, count in boots_of(two).items()), "a boot of each")
    cluster.wait_until_ready(two.nodes)
    return UpAgain(cluster, rebooted, crashed, job, before, entries)


def answers(cluster: Cluster, nodes: list[Node], question: str) -> dict[str, str]:
    return {node.name: cluster.ssh(node, question) for node in nodes}


def boots_of(two: TwoPis) -> dict[str, int]:
    """How often each, by its MAC, has begun to boot."""
    return {node.mac: len(boots.read(two.cluster.paths.boots, node.mac)) for node in two.nodes}


def test_each_is_the_same_node_and_has_forgotten_what_was_written(again: UpAgain) -> None:
    assert again.now(IDENTITY) == again.before[IDENTITY]
    assert set(again.now(BOOT).values()).isdisjoint(again.before[BOOT].values())
    assert set(again.now("ls /root").values()) == {""}
    assert set(again.now("systemctl --failed --plain --no-legend").values()) == {""}


def test_the_job_whose_node_died_runs_again(again: UpAgain) -> None:
    assert "JobState=COMPLETED " in again.cluster.ended(again.job)
    assert len(again.cluster.output("deaths").splitlines()) == 2
    assert "fibo(25) = 75025\n" in again.cluster.output("dies.out")


def test_every_module_comes_back(again: UpAgain, capsys: pytest.CaptureFixture[str]) -> None:
    results = again.cluster.results()
    with capsys.disabled():  # minutes, on emulated Pis that have just booted: which check took them?
        print("", *(f"{result.name} {result.seconds:.0f} s: {result.detail}" for result in results), sep="\n")
    assert [result for result in results if not result.ok] == []
    assert {result.name for result in results if result.skipped} == {"k3s"}


def test_the_swarm_has_each_once_and_knows_what_was_said_of_it(again: UpAgain) -> None:
    assert again.cluster.ssh(again.rebooted, ENTRIES) == again.entries
    labels = f"docker node inspect {again.crashed.name} --format '{{{{.Spec.Labels}}}}'"
    assert again.cluster.ssh(again.rebooted, labels) == "map[seat:window]"
