"""A DHCP server as a program of its own, for tests that run it in a namespace: CONFIG NODES LEASES EVENTS.

CONFIG is a kestrelpi.yaml, NODES a registry, EVENTS gets a line for each event. Prints `ready`; ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from kestrelpi.config import load
from kestrelpi.errors import UserError
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dhcp.server import DhcpServer


class FileDirectory:
    """A registry that is read anew when asked for, so that a test can change it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def node_by_mac(self, mac: str) -> Node | None:
        return Registry.load(self.path).by_mac.get(mac)

    def node_by_address(self, address: object) -> Node | None:
        return next((node for node in Registry.load(self.path) if node.address == address), None)


async def main(config: Path, nodes: Path, leases: Path, events: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with events.open("a", buffering=1) as out:

        def event(mac: str, stage: Stage, detail: str) -> None:
            out.write(json.dumps([mac, stage.value, detail]) + "\n")

        def sighted(mac: str, said: Identity) -> None:
            out.write(json.dumps([mac, "sighted", said.serial]) + "\n")

        server = DhcpServer(load(config), FileDirectory(nodes), leases, event, sighted)
        try:
            await server.start()
        except UserError as error:
            print(error, flush=True)
            sys.exit(1)
        print("ready", flush=True)
        await stop.wait()
        await server.stop()
        print(json.dumps(server.counters), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    asyncio.run(main(*map(Path, sys.argv[1:5])))
