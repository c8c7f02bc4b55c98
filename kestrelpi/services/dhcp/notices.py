"""Warnings for people, each at most once in a while: what comes from the network must not fill the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

log = logging.getLogger("kestrelpi")

EVERY = 60.0
"""Seconds between two warnings about the same thing."""
KINDS = 1024
"""Things that are remembered at most."""


@dataclass(eq=False)
class Notices:
    """What was warned of, and when."""

    clock: Callable[[], float] = time.time
    foreign_servers: dict[IPv4Address, float] = field(default_factory=dict)
    """Other DHCP servers on this network, and the Unix time when they were last heard."""
    heard: Callable[[IPv4Address, bool], None] = lambda server, proxy: None
    """Hears of each message of another DHCP server, and whether it was a boot proxy's."""
    _last: dict[str, float] = field(default_factory=dict)

    def warn(self, about: str, text: str) -> None:
        """Log `text`, unless it was warned about `about` within the last minute."""
        now = self.clock()
        if now - self._last.get(about, float("-inf")) < EVERY:
            return
        if len(self._last) >= KINDS:
            self._last = {key: at for key, at in self._last.items() if now - at < EVERY}
        if len(self._last) < KINDS:
            self._last[about] = now
            log.warning("dhcp: %s", text)

    def foreign(self, server: IPv4Address, proxy: bool = False) -> None:
        """Another DHCP server was heard; `proxy`: one without addresses, which only names a boot server."""
        self.heard(server, proxy)
        if server in self.foreign_servers or len(self.foreign_servers) < KINDS:
            self.foreign_servers[server] = self.clock()
        self.warn(
            f"foreign {server}",
            f"a second DHCP server answers on this network: {server}. Pis may get their address from it and then find "
            "no boot files: switch it off here, or use a network of its own for the nodes",
        )
