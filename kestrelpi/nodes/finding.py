"""What a user named, or an error with what is near to it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from kestrelpi.config import Config, Group, Image
from kestrelpi.errors import UserError
from kestrelpi.nodes.registry import Node, Registry

T = TypeVar("T")
SHOWN = 10
"""So many known names an error lists when none is near."""


def find_node(registry: Registry, name: str) -> Node:
    """The node called `name`; a MAC, a serial or an address will do too. Raises UserError."""
    by_mac = registry.by_mac.get(name.lower().replace("-", ":"))
    by_address = next((node for node in registry if str(node.address) == name), None) if name[:1].isdigit() else None
    found = by_mac or registry.by_serial.get(name.lower()) or by_address
    return found or _find("node", registry.by_name, name)


def find_group(config: Config, name: str) -> Group:
    """The group called `name`; raises UserError."""
    return _find("group", config.groups, name)


def find_image(config: Config, name: str) -> Image:
    """The image called `name`; raises UserError."""
    return _find("image", config.images, name)


def _find(kind: str, known: Mapping[str, T], name: str) -> T:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 3, 0.7)
    if near:
        fix = f"did you mean {' or '.join(near)}?"
    elif not known:
        fix = f"there is no {kind} yet"
    else:
        more = f", … ({len(known)} in all)" if len(known) > SHOWN else ""
        fix = f"{kind}s: {', '.join(list(known)[:SHOWN])}{more}"
    raise UserError(f"there is no {kind} {name!r}", fix=fix)
