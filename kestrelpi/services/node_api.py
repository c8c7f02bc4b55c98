"""What a booting node asks of the frontend, apart from how HTTP carries it.

A node is known by the address it asks from: the neighbour table tells the MAC behind it, the registry tells the node.
Its own files (host keys among them) are handed over once a boot: to the registered address with the registered MAC, to
a source port below 1024, against a token that is good for one delivery. A token is given out only after the boot
loader has fetched a command line since the last delivery. docs/security.md says what this is worth.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from kestrelpi.nodes.boots import FOR_ROOT, BootLog, Kind, Stage
from kestrelpi.nodes.files import FRESH
from kestrelpi.nodes.identity import Secrets, TokenRefused
from kestrelpi.nodes.kept import KeptThings, NotKept
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.sightings import Sightings
from kestrelpi.services.directory import Directory
from kestrelpi.services.turns import Turns

log = logging.getLogger("kestrelpi")

PRIVILEGED = 1024
LATER = "wait turn"
"""The answer to a node that may start later, because others do now. Initramfs that know only `wait` do the same."""


@dataclass(frozen=True)
class Client:
    """Who asks."""

    address: str
    port: int
    mac: str | None
    """From the neighbour table; None: not on our wire."""


class Refused(Exception):
    """The answer is no; the text says why, for the node's console and our log."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Runtime(Protocol):
    """Makes a node's own files (nodes.files.RuntimeFiles)."""

    def archive(self, node: Node) -> bytes:
        """A tar archive."""


class NodeApi:
    """Stages, permission to boot, runtime files. `clock` returns Unix time."""

    def __init__(
        self,
        directory: Directory,
        boots: BootLog,
        sightings: Sightings,
        secrets: Secrets,
        runtime: Runtime,
        clock: Callable[[], float],
        met: Callable[[str, str], None] = lambda mac, address: None,
        turns: Turns | None = None,
    ) -> None:
        self.directory = directory
        self.boots = boots
        self.sightings = sightings
        self.secrets = secrets
        self.runtime = runtime
        self.clock = clock
        self.met = met
        """Hears which address a MAC boots with, as the neighbour table has it."""
        self.turns = turns
        """Whose turn it is to start from its root; None: everybody's at once."""
        self._due: dict[str, str] = {}
        """MACs that a delivery is due to, with the token that was given out for it."""
        self._delivered: set[str] = set()
        self._things: tuple[float, KeptThings | None] = (0.0, None)

    def arm(self, mac: str) -> None:
        """The boot loader of `mac` fetched its command line: a boot begins, one delivery is due."""
        self._due.setdefault(mac, "")

    def stage(self, client: Client, stage: str, detail: str) -> None:
        """Record that a node reached `stage`."""
        mac = self._mac(client)
        try:
            self.boots.record(mac, Stage(stage), self.clock(), detail)
            if self.turns:
                self.turns.reached(mac, Stage(stage))
        except ValueError:
            raise Refused(400, f"there is no stage {stage[:40]!r}") from None

    def boot(self, client: Client, said: Identity, generation: str) -> str:
        """`wait`, LATER, `reboot` or `boot TOKEN`; `generation` is the one whose initramfs asks."""
        mac = self._mac(client)
        self.sightings.see(mac, said, self.clock())
        self.met(mac, client.address)
        node = self.directory.node_by_mac(mac)
        if node is None:
            self.boots.record(mac, Stage.WAITING, self.clock())
            return "wait"
        wanted = self.directory.generation_for(node)
        if wanted is None:
            raise Refused(409, f"the image {self.directory.image(node)} of {node.name} has not been built")
        if wanted.id != generation:
            return "reboot"
        self._privileged(client)
        if not self._is_due(mac):
            raise Refused(403, f"{node.name} has its files already; they are given out once a boot")
        if self.turns and not self.turns.root(mac):
            self.boots.note(mac, Kind.HELD, self.clock(), FOR_ROOT)
            return LATER
        self._due[mac] = self.secrets.token(mac, self.clock())
        return f"boot {self._due[mac]}"

    def runtime_archive(self, client: Client, token: str) -> bytes:
        """The node's own files as a tar archive, once."""
        mac = self._mac(client)
        node = self.directory.node_by_mac(mac)
        if node is None:
            raise Refused(403, f"{mac} is not registered")
        # Beside another DHCP server an address says nothing: it is that server's choice, and may be another one now.
        if not self._proxy and IPv4Address(client.address) != node.address:
            raise Refused(403, f"{node.name} asks from {client.address}, its address is {node.address}")
        self._privileged(client)
        try:
            self.secrets.verify(token, mac, self.clock())
        except TokenRefused as error:
            raise Refused(403, f"the token of {node.name}: {error}") from error
        if not self._is_due(mac) or self._due.get(mac, token) != token:
            raise Refused(403, f"the token of {node.name} has been used, or a newer one was given out")
        archive = self.runtime.archive(node)
        self._due.pop(mac, None)
        self._delivered.add(mac)
        log.info("delivered the files of %s to %s (%s)", node.name, client.address, mac)
        return archive

    def kept(self, client: Client, key: str, module: str, name: str) -> bytes:
        """What a node's program left with us; empty: nothing yet."""
        node = self._holder(client, key)
        try:
            return self._kept().read(node, module, name)
        except NotKept as error:
            raise Refused(403, str(error)) from error

    def keep(self, client: Client, key: str, module: str, name: str, content: bytes) -> None:
        """Take what a node's program leaves with us."""
        node = self._holder(client, key)
        try:
            self._kept().write(node, module, name, content)
        except NotKept as error:
            raise Refused(403, str(error)) from error
        log.info("%s left %s of the module %s: %d bytes", node.name, name, module, len(content))

    def _kept(self) -> KeptThings:
        """A thousand nodes that ask at once don't have the modules read a thousand times."""
        here = self.directory
        made, things = self._things
        old = not 0 <= self.clock() - made < FRESH
        if old or things is None or (things.config, things.registry) != (here.config, here.registry):
            things = KeptThings(here.paths, here.config, here.registry)
            self._things = (self.clock(), things)
        return things

    def _holder(self, client: Client, key: str) -> Node:
        """The node that asks, if it has its own key, which came with its files at the boot."""
        node = self.node_of(client)
        if node is None:
            raise Refused(403, f"{client.address} is no registered node")
        if not hmac.compare_digest(key, self.secrets.kept_key(node.mac)):
            raise Refused(403, f"this is not the key of {node.name}")
        return node

    def node_of(self, client: Client) -> Node | None:
        """The node that asks, if it is registered."""
        return self.directory.node_by_mac(self._mac(client))

    def _mac(self, client: Client) -> str:
        if client.mac:
            return client.mac
        if self._proxy:
            raise Refused(403, f"{client.address} is not on our wire")
        node = self.directory.node_by_address(IPv4Address(client.address))
        if node is None:
            raise Refused(403, f"{client.address} is neither on our wire nor a registered address")
        return node.mac

    @property
    def _proxy(self) -> bool:
        return self.directory.config.services.dhcp.proxy

    def _privileged(self, client: Client) -> None:
        if client.port >= PRIVILEGED:
            raise Refused(403, f"source port {client.port} is not below {PRIVILEGED}: only root on a node may ask")

    def _is_due(self, mac: str) -> bool:
        """Whether a delivery is due: `arm` said so or, as a restart of the daemon forgets that, the boot log does."""
        if mac in self._due:
            return True
        boot = self.boots.current(mac)
        under_way = boot is not None and Stage.KERNEL in boot.stages and Stage.READY not in boot.stages
        return under_way and mac not in self._delivered
