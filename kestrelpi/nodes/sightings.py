"""What was learned of each MAC: by DHCP from its boot loader, by HTTP from the waiting initramfs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.nodes.models import Identity

MOST = 16384
"""So many MACs are remembered: a flood of made-up ones fills neither the memory nor the disk."""
DEBOUNCE = 0.5
"""Seconds in which changes are gathered before the file is written."""
HEARTBEAT = 60.0
"""Seconds after which a new `last` alone is worth writing."""


@dataclass(frozen=True)
class Sighting:
    """One MAC; an empty or zero field is not known."""

    mac: str
    serial: str = ""
    model: str = ""
    revision: int = 0
    memory_mb: int = 0
    cpus: int = 0
    first: float = 0.0
    """Unix time when it was first seen."""
    last: float = 0.0

    def learn(self, said: Identity, now: float) -> Sighting:
        """This sighting with what `said` adds; what it doesn't say stays."""
        new = {key: value for key, value in vars(said).items() if value}
        return replace(self, **new, first=self.first or now, last=max(self.last, now))


def read(path: Path) -> dict[str, Sighting]:
    """The sightings in the file `path`, by MAC.

    None when the file is missing or isn't ours: it only holds what the Pis say again at their next boot.
    """
    try:
        document = json.loads(path.read_bytes())
        return {mac: Sighting(mac=mac, **fields) for mac, fields in document["sightings"].items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write(path: Path, sightings: Mapping[str, Sighting]) -> None:
    """Replace the file: a MAC a line."""
    lines = []
    for mac, one in sightings.items():  # without `indent` and `asdict`: the daemon writes 16,384 of them at times
        fields = {key: value for key, value in vars(one).items() if key != "mac"}
        lines.append(f"{json.dumps(mac)}: {json.dumps(fields)}")
    write_whole(path, '{"sightings": {\n' + ",\n".join(lines) + "\n}}\n")


class Sightings:
    """The daemon's sightings: kept in memory, written when there is something new.

    `due` is asked by the daemon's timer about twice a second and once with `force` at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = read(path)
        self._holder: dict[str, str] = {}
        """The MAC that last said that it has a serial: two that take turns are two boards with one serial."""
        self._changed_at: float | None = None
        self._written_at = 0.0

    def __getitem__(self, mac: str) -> Sighting:
        """What is known of `mac`; an empty sighting when it was never seen."""
        return self.known.get(mac, Sighting(mac))

    def see(self, mac: str, said: Identity, now: float) -> Sighting:
        """Remember what `mac` said at `now` (Unix time)."""
        before = self.known.pop(mac, None)
        after = (before or Sighting(mac)).learn(said, now)
        self.known[mac] = after  # at the end: the first is the one that was not seen for longest
        news = before is None or replace(after, last=before.last) != before
        if said.serial:
            news |= self._holder.get(said.serial, mac) != mac
            if len(self._holder) > MOST:
                self._holder.clear()
            self._holder[said.serial] = mac
        if self._changed_at is None and (news or now - self._written_at >= HEARTBEAT):
            self._changed_at = now
        if len(self.known) > MOST:
            gone = next(iter(self.known))
            self._holder.pop(self.known.pop(gone).serial, None)
        return after

    def due(self, now: float, force: bool = False) -> Callable[[], None] | None:
        """If there is news older than DEBOUNCE: what writes it to the file, for a thread; it may take its time."""
        if self._changed_at is None or (not force and now - self._changed_at < DEBOUNCE):
            return None
        self._changed_at, self._written_at = None, now
        return partial(write, self.path, dict(self.known))
