"""Switching nodes on and off: drivers for what feeds them, one after the other with a stagger."""

from __future__ import annotations

import base64
import http.client
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kestrelpi.config import Config, Power
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.nodes.node import Node
from kestrelpi.run import Finished, run

State = Literal["on", "off"]

TIMEOUT = 10.0
"""Seconds for a switch, a plug or a program to answer."""
AT_ONCE = 16
"""Nodes that are halted or rebooted at the same time."""
WOL_PORT = 9


class Driver(Protocol):
    """Switches one node."""

    def switch(self, node: Node, state: State) -> None:
        """Raises UserError when it can't be done."""


@dataclass(frozen=True)
class SnmpPoe:
    """A PoE switch: sets pethPsePortAdminEnable (RFC 3621), or another OID, with net-snmp's snmpset."""

    power: Power
    run: Callable[..., Finished] = run

    def switch(self, node: Node, state: State) -> None:
        snmp = self.power.snmp
        if not snmp.host or snmp.conf is None:
            raise ConfigError("the driver snmp-poe needs power.snmp.host and power.snmp.conf", where="power.snmp")
        oid = snmp.oid.format(outlet=outlet(self.power, node))
        value = snmp.on_value if state == "on" else snmp.off_value
        with tempfile.TemporaryDirectory(prefix="kestrelpi.") as folder:
            # net-snmp takes a folder, in which it reads snmp.conf.
            (Path(folder) / "snmp.conf").symlink_to(snmp.conf.absolute())
            argv = ["snmpset", "-t", "2", "-r", "2", "-m", "", snmp.host, oid, "i", str(value)]
            self.run(argv, env={"SNMPCONFPATH": folder}, timeout=TIMEOUT)


@dataclass(frozen=True)
class HttpPlug:
    """A plug or PDU with URLs that switch it."""

    power: Power

    def switch(self, node: Node, state: State) -> None:
        settings = self.power.http
        url = settings.on_url if state == "on" else settings.off_url
        if not url:
            raise ConfigError(f"the driver http needs power.http.{state}_url", where="power.http")
        url = url.format(outlet=outlet(self.power, node), name=node.name)
        request = urllib.request.Request(url, method=settings.method, data=b"" if settings.method != "GET" else None)
        if settings.password:
            token = base64.b64encode(settings.password.read_bytes().strip()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                answer.read(4096)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            raise UserError(f"the plug of {node.name} does not do it: {error}", where=url) from error


@dataclass(frozen=True)
class Command:
    """A program of the user."""

    power: Power
    run: Callable[..., Finished] = run

    def switch(self, node: Node, state: State) -> None:
        words = self.power.command.on_program if state == "on" else self.power.command.off_program
        if not words:
            raise ConfigError(f"the driver command needs power.command.{state}_program", where="power.command")
        known = {"name": node.name, "mac": node.mac, "address": str(node.address)}
        given = self.power.outlets.get(node.name, "")
        self.run([word.format(**known, outlet=given) for word in words], timeout=60.0)


@dataclass(frozen=True)
class WakeOnLan:
    """For boards that have it (no Pi does): a magic packet to the broadcast address. Off is the node's own halt."""

    broadcast: str
    port: int = WOL_PORT

    def switch(self, node: Node, state: State) -> None:
        if state == "off":
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            out.sendto(magic_packet(node.mac), (self.broadcast, self.port))


def magic_packet(mac: str) -> bytes:
    """Six bytes 0xff and the MAC sixteen times (AMD publication 20213)."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16


def outlet(power: Power, node: Node) -> str:
    """What feeds the node; raises ConfigError when nobody said."""
    try:
        return power.outlets[node.name]
    except KeyError:
        raise ConfigError(
            f"nobody said which outlet feeds {node.name}",
            where="power.outlets",
            fix=f"add to kestrelpi.yaml: power: {{outlets: {{{node.name}: …}}}}",
        ) from None


def driver(config: Config) -> Driver:
    """The driver that the configuration names; raises ConfigError when there is none."""
    power = config.power
    if power.driver == "snmp-poe":
        return SnmpPoe(power)
    if power.driver == "http":
        return HttpPlug(power)
    if power.driver == "command":
        return Command(power)
    if power.driver == "wol":
        return WakeOnLan(str(config.network.address.network.broadcast_address))
    raise ConfigError(
        "kestrelpi can't switch nodes: power.driver is none",
        where="power.driver",
        fix="set it to snmp-poe, http, command or wol: docs/how-to/power.md",
    )


@dataclass(frozen=True)
class Switched:
    """What became of one node; `error` is empty when it went well."""

    node: Node
    state: State
    error: str = ""


def switch(
    nodes: Sequence[Node],
    state: State,
    by: Driver | None,
    power: Power,
    halt: Callable[[Node], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Switched]:
    """Switch nodes one after the other; a failure doesn't keep the others from their turn.

    Switching on waits `power.stagger` between two nodes. Before they are switched off all nodes are halted (`halt`), at
    the same time; one that can't be halted keeps its power. `by`: None leaves it at that.
    """
    halted = at_once(halt, nodes) if state == "off" else {}
    for number, node in enumerate(nodes):
        if number and state == "on":
            sleep(float(power.stagger))
        error = halted.get(node.name, "")
        if by and not error:
            error = attempt(lambda node: by.switch(node, state), node)
        yield Switched(node, state, error)


def attempt(do: Callable[[Node], None], node: Node) -> str:
    """Do something to a node; returns what went wrong (empty: nothing)."""
    try:
        do(node)
    except UserError as error:
        return str(error)
    return ""


def at_once(do: Callable[[Node], None], nodes: Sequence[Node]) -> dict[str, str]:
    """Do something to AT_ONCE nodes at a time; returns what went wrong (empty: nothing) by the node's name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        errors = pool.map(lambda node: attempt(do, node), nodes)
        return {node.name: error for node, error in zip(nodes, errors, strict=True)}


def spool(root: Path) -> Path:
    """Where slurmctld's programs leave their wishes for the daemon; only slurmctld's user and root write there."""
    return root / "run/kestrelpi-power"


def wishes(folder: Path) -> Iterator[tuple[State, tuple[str, ...]]]:
    """Take what lies in the spool, oldest first: (on or off, names of nodes). A malformed file is dropped."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        words = path.read_text(encoding="utf-8", errors="replace").split()
        path.unlink()
        if words and words[0] == "on":
            yield "on", tuple(words[1:])
        elif words and words[0] == "off":
            yield "off", tuple(words[1:])
