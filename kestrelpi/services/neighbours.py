"""The kernel's neighbour table: which MAC answers for an address on our wire."""

from __future__ import annotations

from pathlib import Path

ARP = Path("/proc/net/arp")
INCOMPLETE = "00:00:00:00:00:00"


def mac_of(address: str, table: Path = ARP) -> str | None:
    """The MAC of `address` (lower case), or None when it isn't a direct neighbour (loopback, behind a router).

    The table's columns: address, hardware type, flags, hardware address, mask, device (proc(5)).
    """
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[0] == address and fields[3] != INCOMPLETE:
            return fields[3].lower()
    return None
