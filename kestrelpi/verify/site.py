"""Where checks run their commands: on the frontend and on the nodes, in the lab's network when a lab is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images.modules import of_image
from kestrelpi.nodes.connections import Connections
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from kestrelpi.run import run

T = TypeVar("T")

FIBO, FIBO_IS = 40, "102334155"
"""What the checks have computed."""
TIMEOUT = 600.0
"""Seconds that one command of a check may take: an emulated Pi's first `docker build` takes minutes."""
AT_ONCE = 16
"""Nodes that are asked at the same time."""


class CheckFailed(UserError):
    """A check found something wrong."""


@dataclass(frozen=True)
class Site:
    """The cluster that is checked."""

    nodes: tuple[Node, ...]
    connections: Connections
    """In a lab, these and the frontend's commands enter its network namespace."""

    @property
    def paths(self) -> Paths:
        return self.connections.paths

    @property
    def config(self) -> Config:
        return self.connections.config

    @property
    def root(self) -> str:
        """What paths on the frontend begin with: empty on a machine of its own."""
        return "" if self.paths.root == Path("/") else str(self.paths.root)

    def frontend(self, words: Sequence[str], stdin: str | None = None) -> str:
        """Run a command on the frontend; raises UserError when it fails."""
        env = {"SLURM_CONF": f"{self.root}/etc/slurm/slurm.conf"}
        return run(self.connections.enter(words), env=env, stdin=stdin, cwd=Path("/"), timeout=TIMEOUT).stdout

    def node(self, node: Node, command: str, stdin: str | None = None) -> str:
        """Run a shell command as root on a node."""
        return self.connections.run(node, command, stdin=stdin, timeout=TIMEOUT)

    def on_all(self, ask: Callable[[Node], T], module: str = "") -> list[tuple[Node, T]]:
        """`ask` of every node that has `module`, at the same time; raises the first error, with the node's name."""

        def one(node: Node) -> T:
            try:
                return ask(node)
            except CheckFailed:
                raise
            except UserError as error:
                raise CheckFailed(f"{node.name}: {error}") from error

        nodes = self.with_module(module)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(zip(nodes, pool.map(one, nodes), strict=True))

    def with_module(self, module: str) -> list[Node]:
        """The nodes whose image has a module; all for an empty name."""
        if not module:
            return list(self.nodes)
        images = {name for name in self.config.images if module in of_image(self.paths, self.config, name)}
        return [node for node in self.nodes if node.image_of(self.config) in images]
