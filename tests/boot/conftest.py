"""Emulated Pis that boot a really built image from the real services. Needs root; minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.config import Config, load
from kestrelpi.lab import demo
from kestrelpi.lab.lab import Lab
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.boot)


@pytest.fixture(scope="session")
def paths(built_root: Path) -> Paths:
    """The root with the built image; its registry and leases are the boot tests' own."""
    return Paths(built_root)


class Cluster:
    """A lab that has just been switched on, with Pis that nobody has seen."""

    def __init__(self, paths: Paths, config: Config, lab: Lab) -> None:
        self.paths, self.config, self.lab = paths, config, lab
        self.said: list[str] = []

    def register(self, count: int) -> list[Node]:
        return demo.register(self.paths, self.config, "rpi", count, self.said.append)

    def wait_until_ready(self, nodes: list[Node]) -> None:
        demo.wait_until_ready(self.paths, self.lab, nodes, self.said.append)

    def ssh(self, node: Node, *words: str) -> str:
        """What a command on the node prints; raises CommandFailed."""
        argv = self.lab.enter(ssh_command(self.paths, self.config, node, words))
        return run.run(argv, timeout=180).stdout.strip()


@dataclass(frozen=True)
class TwoPis:
    """Both are ready."""

    cluster: Cluster
    nodes: list[Node]


SwitchOn = Callable[..., Cluster]
"""Takes the models, and what Lab.up takes."""


@pytest.fixture(scope="session")
def switch_on(paths: Paths) -> Iterator[SwitchOn]:
    """Takes down the lab that was up before: a root has one at a time; the last one goes with the session."""
    config = load(paths.config)
    with ExitStack() as stack:

        def switch_on(*models: str, machine: str = "auto") -> Cluster:
            stack.close()
            lab = Lab(paths, config, attached=True)
            lab.down()
            demo.forget_nodes(paths, config)
            stack.enter_context(lab)
            lab.up(lab.pis(models), machine=machine)
            return Cluster(paths, config, lab)

        yield switch_on


@pytest.fixture(scope="session")
def two(switch_on: SwitchOn) -> TwoPis:
    """A Pi 4 and a Pi 5, registered and ready: booted once for the modules that come before any other `switch_on`."""
    cluster = switch_on("4", "5")
    nodes = cluster.register(2)
    cluster.wait_until_ready(nodes)
    return TwoPis(cluster, nodes)
