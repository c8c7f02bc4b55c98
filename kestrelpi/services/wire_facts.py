"""What the daemon heard on the nodes' network that isn't ours: other DHCP servers, spanning tree. For `doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from kestrelpi.files import write_whole

MOST = 64
"""Servers, and bridges, that are remembered: anybody can make some up."""
HEARTBEAT = 60.0
"""Seconds after which a new `last` alone is worth writing."""


@dataclass(frozen=True)
class Heard:
    """One server or bridge; times are Unix time."""

    first: float
    last: float
    how: str = ""
    """`dhcp` or `proxy`; of a bridge the protocol (`STP`, `RSTP`, `MSTP`, `PVST+`)."""
    times: int = 1


@dataclass(frozen=True)
class Facts:
    """All that was heard."""

    servers: Mapping[str, Heard] = field(default_factory=dict)
    """Other DHCP servers by address."""
    bridges: Mapping[str, Heard] = field(default_factory=dict)
    """Switches that send spanning tree's frames, by MAC."""


def read(path: Path) -> Facts:
    """The facts in the file `path`; none when it is missing or isn't ours: they are heard again."""
    try:
        document = json.loads(path.read_bytes())
        return Facts(_heard(document["servers"]), _heard(document["bridges"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return Facts()


def _heard(document: Mapping[str, dict[str, float]]) -> dict[str, Heard]:
    return {name: Heard(**fields) for name, fields in document.items()}  # type: ignore[arg-type]


class WireFacts:
    """The daemon's side: in memory, written when there is news, once a minute otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = read(path)
        self.servers = dict(known.servers)
        self.bridges = dict(known.bridges)
        self._news = False
        self._changed = False
        self._written = 0.0

    def server(self, address: str, proxy: bool, now: float) -> None:
        """Another DHCP server was heard."""
        self._hear(self.servers, address, "proxy" if proxy else "dhcp", now)

    def bridge(self, mac: str, protocol: str, now: float) -> None:
        """A frame of spanning tree was heard."""
        self._hear(self.bridges, mac, protocol, now)

    def _hear(self, known: dict[str, Heard], name: str, how: str, now: float) -> None:
        before = known.get(name)
        if before is None and len(known) >= MOST:
            del known[min(known, key=lambda one: known[one].last)]
        self._news |= before is None
        self._changed = True
        kept = "dhcp" if before and before.how == "dhcp" else how  # its ACK to a proxied client has no address either
        known[name] = replace(before, last=now, how=kept, times=before.times + 1) if before else Heard(now, now, how)

    def due(self, now: float, force: bool = False) -> Callable[[], None] | None:
        """If there is something to write: what writes it, for a thread; it may take its time."""
        if not self._news and not (self._changed and (force or now - self._written >= HEARTBEAT)):
            return None
        self._news = self._changed = False
        self._written = now
        document = {"servers": _plain(self.servers), "bridges": _plain(self.bridges)}
        return partial(write_whole, self.path, json.dumps(document, indent=1) + "\n")


def _plain(known: Mapping[str, Heard]) -> dict[str, object]:
    return {name: asdict(one) for name, one in known.items()}
