"""Each generation with who boots it: for `images list`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.images.store import Generation, Store
from kestrelpi.nodes.registry import Registry
from kestrelpi.releasing import outcome


@dataclass(frozen=True)
class Row:
    """One generation."""

    generation: Generation
    state: str
    """`current`, `canary GROUP`, or empty: nobody boots it unless pinned to it."""
    tested: str
    """`passed`, `failed`, or empty: it was not."""
    nodes: tuple[str, ...]
    """Who gets it at the next boot."""
    size: int
    """Bytes of its files; those that it shares with other generations count too."""

    def document(self) -> dict[str, object]:
        """For --json."""
        manifest = self.generation.manifest
        return {
            "image": self.generation.image,
            "id": self.generation.id,
            "current": self.state == "current",
            "state": self.state,
            "tested": self.tested,
            "nodes": list(self.nodes),
            "created": manifest.created,
            "suite": manifest.suite,
            "kernel": manifest.kernel,
            "packages": len(manifest.packages),
            "files": manifest.files,
            "bytes": self.size,
            "boot_bytes": sum(info.size for info in manifest.boot.values()),
            "tree": manifest.tree,
        }


def rows(store: Store, config: Config, registry: Registry, images: Sequence[str]) -> list[Row]:
    """A row a generation, the oldest of each image first."""
    boots = who_boots(store, config, registry)
    found = []
    for image in images:
        for one in store.generations(image):
            result = outcome.read(one)
            tested = "" if result is None else "passed" if result.passed else "failed"
            nodes = tuple(boots.get((image, one.id), ()))
            found.append(Row(one, state(store, config, one), tested, nodes, size(one.folder)))
    return found


def who_boots(store: Store, config: Config, registry: Registry) -> Mapping[tuple[str, str], Sequence[str]]:
    """Image and id → names of the nodes that get this generation at their next boot."""
    boots: dict[tuple[str, str], list[str]] = defaultdict(list)
    offered: dict[tuple[str, str], str] = {}
    for node in registry:
        image = node.image_of(config)
        if (image, node.group) not in offered:
            generation = store.offered(image, node.group, config)
            offered[image, node.group] = generation.id if generation else ""
        boots[image, node.pin or offered[image, node.group]].append(node.name)
    return boots


def state(store: Store, config: Config, generation: Generation) -> str:
    """What the generation is among those of its image."""
    chosen = config.images.get(generation.image)
    canary, current = store.canary(generation.image), store.current(generation.image)
    if current and current.id == generation.id:
        return "current"
    if chosen and chosen.canary and canary and canary.id == generation.id:
        return f"canary {chosen.canary}"
    return ""


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    found = 0
    for parent, _, names in os.walk(folder):
        found += sum(os.lstat(f"{parent}/{name}").st_size for name in names)
    return found
