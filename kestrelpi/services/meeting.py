"""Beside another DHCP server: at which addresses Pis are met, for registering them and for the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.following import follow_all
from kestrelpi.services.directory import Directory

log = logging.getLogger("kestrelpi")

EVERY = 0.5
"""Seconds between two looks at what has moved."""
AGAIN = 30.0
"""Seconds until a registry that couldn't be written is tried again."""


class Meeting:
    """Hears of MACs and their addresses from TFTP and HTTP, in the daemon's loop. Idle unless the mode is `proxy`."""

    def __init__(self, directory: Directory, note: Callable[[str, IPv4Address], None]) -> None:
        """`note` keeps what is like a lease (DhcpServer.met)."""
        self.directory = directory
        self.note = note
        self._nodes: dict[str, IPv4Address] = {}
        """Where each node was met last, by MAC: one that couldn't be moved may be able to when another has moved."""
        self._news = False

    @property
    def _config(self) -> Config:
        return self.directory.config

    def met(self, mac: str, address: str) -> None:
        """The neighbour table has `mac` for `address`, from which a boot is asked for."""
        if not self._config.services.dhcp.proxy:
            return
        where = IPv4Address(address)
        if where not in self._config.network.address.network:
            log.warning("%s boots from %s, which is outside of network.address", mac, where)
            return
        self.note(mac, where)
        node = self.directory.node_by_mac(mac)
        if node is not None:
            self._news |= node.address != where and self._nodes.get(mac) != where
            self._nodes[mac] = where

    async def tend(self) -> None:
        """Bring the registry up to date whenever nodes have moved; for a task of its own."""
        while True:
            await asyncio.sleep(EVERY)
            if self._news:
                self._news = False
                try:
                    await self._follow()
                except UserError as error:
                    log.error("the nodes' new addresses can't be written: %s", error)
                    self._news = True
                    await asyncio.sleep(AGAIN)

    async def _follow(self) -> None:
        moved = await asyncio.to_thread(follow_all, self.directory.paths, self._config, dict(self._nodes))
        for node in moved:
            log.info("%s is at %s now", node.name, node.address)
