"""Which generation each node runs: what its initramfs said when it had mounted the root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry, edit
from kestrelpi.paths import Paths

BOOTS = 3
"""So many of a node's last boots are looked at: those that were cut short mounted nothing."""


def running(folder: Path, nodes: Iterable[Node]) -> dict[str, tuple[str, str]]:
    """Node → image and id of the root that it mounted last, if it ever did; `folder`: the boots' files.

    A node that was switched off still counts: nobody can know that it was.
    """
    found = {}
    for node in nodes:
        for boot in reversed(boots.read(folder, node.mac, BOOTS)):
            image, _, id = boot.details.get(Stage.ROOT, "").partition(" ")
            if id:
                found[node.name] = (image, id)
                break
    return found


def used(paths: Paths, config: Config, registry: Registry) -> set[tuple[str, str]]:
    """Image and id of every generation that a node is pinned to or runs."""
    pinned = {(node.image_of(config), node.pin) for node in registry if node.pin}
    return pinned | set(running(paths.boots, registry.nodes).values())


@contextmanager
def holding_used(paths: Paths, config: Config) -> Iterator[set[tuple[str, str]]]:
    """The same, and nobody pins a node to anything else meanwhile: for who takes generations away.

    Raises ConfigError when the registry can't be read, UserError when another process holds it.
    """
    with edit(paths, config) as held:
        yield used(paths, config, held.registry)
