"""One row for each emulated Pi: what its supervisor, the registry and its console say."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.state import PiState
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.paths import Paths


@dataclass(frozen=True)
class Row:
    """One emulated Pi."""

    pi: PiState
    name: str
    """The node's, or empty: it isn't registered."""
    address: str
    """The node's, or what the boot loader got."""
    seconds: float
    """How long it has been in its state."""
    console: str
    """Its last line."""

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            **dataclasses.asdict(self.pi),
            "name": self.name,
            "address": self.address,
            "seconds": round(self.seconds, 1),
            "console": self.console,
        }


def rows(lab: Lab, registry: Registry) -> list[Row]:
    """All Pis of the lab, by number."""
    now = time.time()
    found = []
    for state in lab.states():
        folder = lab.folder_of(state.index)
        node = registry.by_mac.get(state.mac)
        report = folder.read_report()
        loaded = report.address if report else ""
        address = str(node.address) if node else loaded
        found.append(Row(state, node.name if node else "", address, now - state.since, folder.last_line()))
    return found


def load_registry(paths: Paths, config: Config) -> Registry:
    """The registry, or an empty one before the first node is registered."""
    return Registry.load(paths.registry, config) if paths.registry.exists() else Registry.of(())


def index_of(lab: Lab, registry: Registry, name: str) -> int:
    """The number of the Pi that the user calls `name`: its number, its node's name, its MAC or its serial.

    Raises UserError with the known ones.
    """
    known: dict[str, int] = {}
    for state in lab.states():
        node = registry.by_mac.get(state.mac)
        for word in (str(state.index), state.mac, state.serial, node.name if node else ""):
            known[word] = state.index
    known.pop("", None)
    if name.lower() not in known:
        raise UserError(f"the lab has no Pi {name!r}", fix=f"it has: {', '.join(known) or 'none'}")
    return known[name.lower()]


def node_of(lab: Lab, registry: Registry, name: str) -> Node:
    """The registered node that the user calls `name`; raises UserError."""
    if name in registry.by_name:
        return registry.by_name[name]
    state = next(one for one in lab.states() if one.index == index_of(lab, registry, name))
    if state.mac not in registry.by_mac:
        raise UserError(
            f"Pi {name} ({state.mac}) is not registered", fix="register it with: kestrelpi nodes register GROUP"
        )
    return registry.by_mac[state.mac]
