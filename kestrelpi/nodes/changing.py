"""What `nodes set` and `nodes remove` do to the registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.finding import find_group, find_image, find_node
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.nodes.registry_file import NAME
from kestrelpi.nodes.sightings import Sighting


@dataclass(frozen=True)
class Change:
    """New values of a node; None: stays as it is."""

    name: str | None = None
    mac: str | None = None
    group: str | None = None
    address: IPv4Address | None = None
    image: str | None = None
    """Empty: the group's."""
    pin: str | None = None
    """Empty: the image's current generation."""

    @property
    def empty(self) -> bool:
        return self == Change()


def change_node(
    registry: Registry, config: Config, name: str, change: Change, known: Mapping[str, Sighting]
) -> tuple[Registry, Node]:
    """`registry` with the node `name` changed, and that node. Raises UserError when it can't be so.

    A new MAC is another board: its serial and model are those that were seen of it, or unknown.
    """
    node = find_node(registry, name)
    new = replace(node, **{key: value for key, value in vars(change).items() if value is not None})
    _check(new, config)
    if new.name != node.name and new.name in registry.by_name:
        raise UserError(f"there is a node {new.name} already")
    if new.mac != node.mac:
        seen = known.get(new.mac, Sighting(new.mac))
        new = replace(new, serial=seen.serial, model=seen.model)
    if new.image == config.groups[new.group].image:
        new = replace(new, image="")
    return registry.without(node.name).with_node(new), new


def _check(node: Node, config: Config) -> None:
    find_group(config, node.group)
    if node.image:
        find_image(config, node.image)
    if not NAME.fullmatch(node.name):
        raise UserError(f"{node.name!r} can't be a host name", fix="use lower-case letters, digits and '-'")
    if not config.services.dhcp.proxy and node.address not in config.node_addresses:
        raise UserError(f"{node.address} is outside of network.nodes ({config.node_addresses})")


def remove_nodes(registry: Registry, names: Iterable[str]) -> tuple[Registry, list[Node]]:
    """`registry` without the named nodes, and those; raises UserError if one of them isn't there."""
    gone = list(dict.fromkeys(find_node(registry, name) for name in names))
    kept = set(registry.nodes) - set(gone)
    return Registry.of(kept), gone
