"""One registered Pi."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from kestrelpi.config import Config

REMEMBERED = 16384
"""Nodes whose sort key, line and text are kept: a registry is read again whenever one of its lines has changed."""


@dataclass(frozen=True)
class Node:
    """One registered Pi."""

    name: str
    mac: str
    group: str
    address: IPv4Address
    serial: str = ""
    """The low 32 bits of the serial number, 8 hex digits in lower case; empty: not known yet."""
    model: str = ""
    image: str = ""
    """Empty: the group's."""
    pin: str = ""
    """The generation that it boots; empty: the image's current one."""

    def image_of(self, config: Config) -> str:
        """The image that it boots."""
        return self.image or config.groups[self.group].image


@lru_cache(REMEMBERED)
def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A sort key that puts rpi2 before rpi10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name))
