"""The scalar types of the configuration that Python doesn't have, each with its parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class AddressRange:
    """Addresses from `first` to `last`, both included."""

    first: IPv4Address
    last: IPv4Address

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """`10.77.0.100-10.77.0.199`; raises ValueError."""
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not dash:
            raise ValueError("expected two addresses: 10.0.0.100-10.0.0.199")
        found = cls(IPv4Address(first), IPv4Address(last))
        if found.first > found.last:
            raise ValueError("the first address is above the last")
        return found

    def __contains__(self, address: IPv4Address) -> bool:
        return int(self.first) <= int(address) <= int(self.last)  # a third of the time: it is asked for 10,000 nodes

    def __iter__(self) -> Iterator[IPv4Address]:
        return (IPv4Address(number) for number in range(int(self.first), int(self.last) + 1))

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def overlaps(self, other: AddressRange) -> bool:
        return self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class Duration(int):
    """Whole seconds."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """`90`, `90s`, `15m`, `12h`, `7d`; raises ValueError."""
        match = re.fullmatch(r"(\d+)\s*([smhd]?)", text.strip())
        if not match:
            raise ValueError("expected a time such as 90s, 15m, 12h or 7d")
        return cls(int(match[1]) * UNITS[match[2] or "s"])


class Size(int):
    """Bytes."""

    @classmethod
    def parse(cls, text: str) -> Size:
        """`4096`, `512K`, `128M`, `2G`, with 1024 as the step; raises ValueError."""
        match = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
        if not match:
            raise ValueError("expected a size such as 512K, 128M or 2G")
        return cls(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()])

    @property
    def megabytes(self) -> int:
        return self >> 20


def parse_mac(text: str) -> str:
    """A MAC address in the one form used everywhere: lower case, colons. Raises ValueError."""
    plain = text.strip().lower().replace("-", ":")
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", plain):
        raise ValueError("expected a MAC address such as dc:a6:32:01:02:03")
    return plain
