"""The kernel's neighbour table: which MAC answers for an address on our wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

ARP = Path("/proc/net/arp")
INCOMPLETE = "00:00:00:00:00:00"
KEPT, MISSED = 0.5, 0.05
"""Seconds after which `Lately` reads the table again, and after which it does for an address that it doesn't know."""


def mac_of(address: str, table: Path = ARP) -> str | None:
    """The MAC of `address` (lower case), or None when it isn't a direct neighbour (loopback, behind a router)."""
    return read(table).get(address)


def read(table: Path = ARP) -> dict[str, str]:
    """The MACs of all neighbours by address.

    The table's columns: address, hardware type, flags, hardware address, mask, device (proc(5)).
    """
    lines = (line.split() for line in table.read_text().splitlines()[1:])
    return {fields[0]: fields[3].lower() for fields in lines if fields[3] != INCOMPLETE}


class Lately:
    """The table as it was a moment ago, for who asks often: with a thousand neighbours each look costs a millisecond,
    and a thousand Pis that boot make eighty transfers each. Not for deciding who gets secrets."""

    def __init__(self, table: Path = ARP, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._clock = table, clock
        self._known: dict[str, str] = {}
        self._at = float("-inf")

    def mac_of(self, address: str) -> str | None:
        """As `mac_of`."""
        age = self._clock() - self._at
        if age > KEPT or (age > MISSED and address not in self._known):
            self._known = read(self._table)
            self._at = self._clock()
        return self._known.get(address)
