"""Where another server gives the addresses, the registry follows them: it says where each node was met last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from kestrelpi.config import Config
from kestrelpi.nodes.registry import Node, Registry, edit
from kestrelpi.paths import Paths


def follow(registry: Registry, met: Mapping[str, IPv4Address]) -> Registry:
    """`registry` with the addresses at which its nodes were met, by MAC.

    All moves count together, so that two nodes can swap. A node whose new address is another's, which was not met
    anywhere else, stays: two nodes can't have one address.
    """
    moves = {node.mac: met[node.mac] for node in registry if met.get(node.mac, node.address) != node.address}
    while moves:
        new = {node.mac: moves.get(node.mac, node.address) for node in registry}
        holders: dict[IPv4Address, list[str]] = {}
        for mac, address in new.items():
            holders.setdefault(address, []).append(mac)
        clashing = {mac for macs in holders.values() if len(macs) > 1 for mac in macs if mac in moves}
        if not clashing:
            return Registry(tuple(replace(node, address=new[node.mac]) for node in registry))
        moves = {mac: address for mac, address in moves.items() if mac not in clashing}
    return registry


def follow_all(paths: Paths, config: Config, met: Mapping[str, IPv4Address]) -> list[Node]:
    """Write to the registry what `follow` changes; returns the nodes that moved. Raises UserError: it is locked."""
    with edit(paths, config) as change:
        before = change.registry
        change.registry = follow(before, met)
        return [node for node in change.registry if node != before.by_name[node.name]]
