"""Emulated Pis that boot a really built image from the real services. Needs root; minutes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from kestrelpi.config import Config, load
from kestrelpi.errors import UserError
from kestrelpi.lab import demo
from kestrelpi.lab.lab import Lab
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths
from kestrelpi.run import CommandFailed
from kestrelpi.users import changing
from kestrelpi.verify.checks import CHECKS, Result, carry_out
from kestrelpi.verify.site import TIMEOUT, Site
from tests import waiting


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.boot)


SWITCHED_ON: list[Cluster] = []
"""Those that are on, for what is said when a test fails."""
STATE = """\
uptime; free -m; ps -eo etime,time,stat,args --sort=-time | head -15
journalctl --boot --no-pager --lines=40 --priority=warning; journalctl --boot --no-pager --lines=40
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the state of all nodes with a failure: they are gone when somebody reads of it."""
    report = yield
    if report.failed:
        report.sections += [
            (f"{node.name}, {node.address}", cluster.state(node)) for cluster in SWITCHED_ON for node in cluster.nodes
        ]
    return report


UNDER_WAY = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED")
"""States of a job."""


until = partial(waiting.until, seconds=demo.READY_WITHIN, pause=1)


class Cluster:
    """A lab that has just been switched on, with Pis that nobody has seen."""

    def __init__(self, paths: Paths, config: Config, lab: Lab, connections: Connections) -> None:
        self.paths, self.config, self.lab, self.connections = paths, config, lab, connections
        self.said: list[str] = []

    @property
    def nodes(self) -> tuple[Node, ...]:
        return Registry.load(self.paths.registry, self.config).nodes

    def state(self, node: Node) -> str:
        """What a node is at and what its journal says, or why it doesn't tell."""
        try:
            return self.ssh(node, STATE)
        except UserError as error:
            return str(error)

    def register(self, count: int) -> list[Node]:
        return demo.register(self.paths, self.config, "rpi", count, self.said.append)

    def wait_until_ready(self, nodes: list[Node]) -> None:
        demo.wait_until_ready(self.paths, self.lab, nodes, self.said.append)

    def ssh(self, node: Node, command: str) -> str:
        """What a command on the node prints; raises CommandFailed."""
        return self.connections.run(node, command, timeout=TIMEOUT).strip()

    def until(self, node: Node, command: str, good: Callable[[str], bool]) -> None:
        """Ask a node again and again until its answer is good."""
        until(lambda: good(self.ssh(node, command)), f"a good answer of {node.name} to {command}")

    def as_anna(self, node: Node, command: str) -> str:
        """What a command of the user prints."""
        return self.ssh(node, f"su - anna -c '{command}'")

    def output(self, name: str) -> str:
        """A file in the user's home."""
        return (self.paths.root / "home/cluster/anna" / name).read_text()

    def slurm(self, *words: str) -> str:
        """What one of Slurm's commands prints on the frontend."""
        return self.site.frontend(words).strip()

    def ended(self, job: str) -> str:
        """The state of a job once it has ended."""
        until(lambda: not any(f"JobState={state} " in self.job(job) for state in UNDER_WAY), f"the end of job {job}")
        return self.job(job)

    def job(self, job: str) -> str:
        """What Slurm knows of a job; of one that ended 5 minutes ago (MinJobAge) only its log does."""
        try:
            return self.slurm("scontrol", "show", "job", job, "--oneliner")
        except CommandFailed:
            log = (self.paths.root / "var/log/slurm/jobcomp.log").read_text().splitlines()
            ended = [line for line in log if line.startswith(f"JobId={job} ")]
            if not ended:
                raise
            return ended[-1]

    @property
    def site(self) -> Site:
        return Site(self.nodes, self.connections)

    def results(self, *names: str) -> list[Result]:
        """What some of `kestrelpi verify`'s checks say; all of them without names."""
        return list(carry_out(tuple(check for check in CHECKS if not names or check.name in names), self.site))

    def check(self, name: str) -> None:
        """Run one of `kestrelpi verify`'s checks, which must succeed."""
        [result] = self.results(name)
        assert result.ok, result.detail
        assert not result.skipped, result.detail


@dataclass(frozen=True)
class TwoPis:
    """Both are ready."""

    cluster: Cluster
    nodes: list[Node]


@contextmanager
def switched_on(paths: Paths, *models: str, machine: str = "auto") -> Iterator[Cluster]:
    """Pis that boot from the image of a root, which has one lab at a time; its registry and leases are forgotten."""
    config = load(paths.config)
    with Lab(paths, config, attached=True) as lab:
        lab.down()
        demo.forget_nodes(paths, config)
        lab.up(lab.pis(models), machine=machine)
        with Connections(paths, config, lab.enter) as connections:
            cluster = Cluster(paths, config, lab, connections)
            SWITCHED_ON.append(cluster)
            try:
                yield cluster
            finally:
                SWITCHED_ON.remove(cluster)


@pytest.fixture(scope="session")
def two(built_root: Path) -> Iterator[TwoPis]:
    """A Pi 4 and a Pi 5, registered and ready: booted once for all modules that use them."""
    with switched_on(Paths(built_root), "4", "5") as cluster:
        nodes = cluster.register(2)
        cluster.wait_until_ready(nodes)
        yield TwoPis(cluster, nodes)


@pytest.fixture(scope="session")
def anna(two: TwoPis) -> None:
    """A user of the cluster."""
    changing.add(two.cluster.paths, two.cluster.config, "anna", None, "", Registry.of(two.nodes))
