"""Which names and addresses new nodes get."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import IPv4Address

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.leases import Lease
from kestrelpi.nodes.registry import Registry


class Vacancies:
    """Free names and addresses in ascending order, each handed out once: a search from the beginning for each of a
    thousand Pis, among 10,000 nodes, would take a minute."""

    def __init__(self, registry: Registry, config: Config, prefix: str, held: Mapping[str, Lease]) -> None:
        self._config = config
        self._registry = registry
        names = (f"{prefix}{number}" for number in itertools.count(1))
        self._names = (name for name in names if name not in registry.by_name)
        leased = {lease.address for lease in held.values()}
        free = (one for one in config.node_addresses if one not in registry.by_address and one not in leased)
        self._addresses = free
        self._next = next(free, None)

    def name(self) -> str:
        """The group's first free name."""
        return next(self._names)

    def address(self, own: IPv4Address) -> IPv4Address:
        """The lowest address of network.nodes that is no node's and that nobody but the Pi, who has a lease for `own`,
        has a lease for. Raises UserError when there is none."""
        ours = own in self._config.node_addresses and own not in self._registry.by_address
        if ours and (self._next is None or own < self._next):
            return own
        found, self._next = self._next, next(self._addresses, None)
        if found is None:
            raise UserError(
                f"no address is free in network.nodes ({self._config.node_addresses})",
                fix="widen network.nodes in the configuration, or remove nodes: kestrelpi nodes remove NAME",
            )
        return found
