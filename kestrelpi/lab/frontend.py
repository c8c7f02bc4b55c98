"""The server's side of a simulated room: the real rules of DHCP and admission, without sockets and clock."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from kestrelpi.config import parse
from kestrelpi.lab.identity import PiSpec
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.node import Node
from kestrelpi.services.dhcp import packet
from kestrelpi.services.dhcp.book import LeaseBook
from kestrelpi.services.dhcp.notices import Notices
from kestrelpi.services.dhcp.offer import site
from kestrelpi.services.dhcp.policy import Policy
from kestrelpi.services.turns import Turns

CONFIG = parse("network: {address: 10.77.0.1/16}\n")


class Registered:
    """A directory in which every Pi is registered, by number."""

    def __init__(self, pis: Sequence[PiSpec]) -> None:
        first = IPv4Address("10.77.1.0")
        nodes = [Node(f"rpi{pi.index}", pi.mac, "rpi", first + pi.index) for pi in pis]
        self._macs = {node.mac: node for node in nodes}
        self._addresses = {node.address: node for node in nodes}

    def node_by_mac(self, mac: str) -> Node | None:
        return self._macs.get(mac)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return self._addresses.get(address)


class Frontend:
    """The server's side, as kestrelpi serve has it, without sockets. `turns`: None lets everybody in at once."""

    def __init__(self, pis: Sequence[PiSpec], turns: Turns | None) -> None:
        self.turns = turns
        directory = Registered(pis)
        book = LeaseBook(CONFIG.pool, lambda address: directory.node_by_address(address) is not None)
        quiet = Notices(lambda: 0.0)
        self.policy = Policy(
            CONFIG, site(CONFIG), directory, book, lambda *_: None, lambda *_: None, quiet, turns=turns
        )
        self._held: dict[str, packet.Message] = {}

    def receive(self, raw: bytes, now: float) -> tuple[bytes, float] | None:
        """The reply to a BOOTP payload, and the seconds after which it is sent."""
        asked = packet.parse(raw)
        answer = self.policy.answer(asked, now)
        if answer is None:
            self._held[asked.mac] = asked
            return None
        return answer.packet, answer.delay

    def called(self, mac: str, now: float) -> tuple[bytes, float] | None:
        """The same for a Pi that waited."""
        answer = self.policy.called(self._held.pop(mac), now)
        return (answer.packet, answer.delay) if answer else None

    def root(self, mac: str) -> bool:
        return self.turns is None or self.turns.root(mac)

    def reached(self, mac: str, stage: Stage) -> None:
        if self.turns:
            self.turns.reached(mac, stage)
