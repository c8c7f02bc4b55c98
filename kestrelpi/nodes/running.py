"""Which generation each node runs: what its initramfs said when it had mounted the root."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.node import Node

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
