"""What the rules of `policy` are given and what they give: who asks, who is registered, whose turn it is, the reply."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from kestrelpi.nodes.node import Node
from kestrelpi.services.admission import Patience
from kestrelpi.services.dhcp.packet import Kind


class Directory(Protocol):
    """Who is registered."""

    def node_by_mac(self, mac: str) -> Node | None: ...

    def node_by_address(self, address: IPv4Address) -> Node | None: ...


class Turns(Protocol):
    """Who may load now."""

    def ask(self, mac: str, patience: Patience, xid: int, registered: bool = False) -> bool: ...


@dataclass(frozen=True)
class Answer:
    """A reply, and when to send it."""

    packet: bytes
    address: IPv4Address
    """What the client will have; 0.0.0.0 in a NAK."""
    kind: Kind
    delay: float = 0.0
    """Seconds."""
    probe: bool = False
    """Whether somebody may use the address without our knowing: it is new for this client."""


@dataclass(frozen=True)
class Client:
    """Who asks, and what the configuration says for him."""

    node: Node | None
    pi: bool
    served: bool
    boot: bool
    """Whether he may get what a boot loader needs."""


@dataclass(frozen=True)
class Seen:
    """The last DISCOVER of a MAC."""

    at: float
    xid: int
    pxe: bool
    serial: str
