"""Network namespaces for tests: a server's and clients', joined by a bridge; always deleted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kestrelpi.run import Finished, run

COUNT = itertools.count()


class Namespace:
    """A network namespace that exists until `delete`."""

    def __init__(self, what: str) -> None:
        self.name = f"kpi-test-{os.getpid()}-{next(COUNT)}-{what}"
        run(["ip", "netns", "add", self.name])

    def ip(self, *words: str) -> None:
        run(["ip", "-n", self.name, *words])

    def argv(self, *words: str | Path) -> list[str]:
        """A command inside."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: str | Path, timeout: float = 60) -> Finished:
        return run(self.argv(*words), timeout=timeout)

    def delete(self) -> None:
        run(["ip", "netns", "delete", self.name])


@contextmanager
def network(address: str, macs: dict[str, str]) -> Iterator[tuple[Namespace, dict[str, Namespace]]]:
    """A server with `address` on its bridge br0, and for each name of `macs` a client with that MAC on its eth0."""
    with ExitStack() as stack:
        server = Namespace("server")
        stack.callback(server.delete)
        server.ip("link", "set", "lo", "up")
        server.ip("link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        server.ip("address", "add", address, "brd", "+", "dev", "br0")
        server.ip("link", "set", "br0", "up")
        clients = {}
        for number, (name, mac) in enumerate(macs.items()):
            client = clients[name] = Namespace(name)
            stack.callback(client.delete)
            port = f"port{number}"
            server.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", client.name)
            server.ip("link", "set", port, "master", "br0")
            server.ip("link", "set", port, "up")
            client.ip("link", "set", "lo", "up")
            client.ip("link", "set", "eth0", "up")
        yield server, clients
