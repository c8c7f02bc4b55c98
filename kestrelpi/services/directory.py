"""What the boot services ask: which node is this, and which generation does it get."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address

from kestrelpi.config import Config, Group
from kestrelpi.errors import UserError
from kestrelpi.images.store import Generation, Store
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths

log = logging.getLogger("kestrelpi")


class Directory:
    """A snapshot of the registry, and the images' current generations. One a process; `reload` takes a new snapshot."""

    def __init__(self, paths: Paths, config: Config, registry: Registry | None = None) -> None:
        """`registry`: a snapshot that is known to be good; without it the file is read (UserError when it is bad)."""
        self.paths = paths
        self.config = config
        self.store = Store(paths)
        self.registry = Registry.load(paths.registry, config) if registry is None else registry
        self._stamp = self._seen = self._registry_stamp()

    def reload(self, config: Config | None = None) -> bool:
        """Read the registry again; a bad one is named in the log and the last good one stays. True if it was read."""
        try:
            registry = Registry.load(self.paths.registry, config or self.config)
        except UserError as error:
            log.error("the registry is not usable, the last good one stays in force: %s", error)
            return False
        self.registry = registry
        self.config = config or self.config
        return True

    def changed(self) -> bool:
        """Whether the registry's file is another one than at the last call that said so.

        A file that was replaced is whole. One that is written in place, as some editors do, counts once it has stayed
        the same from one call to the next: half of it would be nodes that are gone.
        """
        seen, self._seen = self._seen, self._registry_stamp()
        replaced = self._seen[0] != self._stamp[0]
        if self._seen == self._stamp or not (replaced or self._seen == seen):
            return False
        self._stamp = self._seen
        return True

    def node_by_mac(self, mac: str) -> Node | None:
        return self.registry.by_mac.get(mac)

    def node_by_serial(self, serial: str) -> Node | None:
        return self.registry.by_serial.get(serial)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return self.registry.by_address.get(address)

    def group(self, node: Node) -> Group:
        return self.config.groups.get(node.group, Group())

    def image(self, node: Node) -> str:
        return node.image or self.group(node).image

    def generation_for(self, node: Node) -> Generation | None:
        """The pinned generation, or what its group gets of its image; None: not built yet."""
        image = self.image(node)
        return (
            self.store.generation(image, node.pin) if node.pin else self.store.offered(image, node.group, self.config)
        )

    def waiting_generation(self) -> Generation | None:
        """What a Pi boots that nobody has registered: the first image of the configuration that has been built."""
        return next(filter(None, map(self.store.current, self.config.images)), None)

    def _registry_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self.paths.registry.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
