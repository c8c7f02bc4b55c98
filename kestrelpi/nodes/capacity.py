"""What each node can compute with: for schedulers' configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kestrelpi.config import Config
from kestrelpi.nodes.registry import Registry
from kestrelpi.nodes.sightings import Sighting

CPUS_OF_A_PI = 4
"""Every Pi that boots over the network has four cores; so has one that hasn't reported yet."""


@dataclass(frozen=True)
class Capacity:
    """One node."""

    name: str
    address: str
    group: str
    image: str
    model: str
    cpus: int
    memory_mb: int
    """As its own kernel counts it; 0: not reported yet."""


def capacities(registry: Registry, config: Config, sightings: Mapping[str, Sighting]) -> list[Capacity]:
    """All nodes, in natural order of their names."""
    return [
        Capacity(
            name=node.name,
            address=str(node.address),
            group=node.group,
            image=node.image_of(config),
            model=node.model,
            cpus=seen.cpus or CPUS_OF_A_PI,
            memory_mb=seen.memory_mb,
        )
        for node in registry
        for seen in (sightings.get(node.mac, Sighting(node.mac)),)
    ]
