"""The registry's file: YAML that people may edit and that reads in a blink at any size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

import yaml

from kestrelpi.config import Config, parse_mac
from kestrelpi.config.schema import Document, read
from kestrelpi.config.values import AddressRange
from kestrelpi.nodes.node import REMEMBERED, Node

HEADER = """\
# The registry of kestrelpi: one node a line. `kestrelpi nodes register` adds to it, and people may edit it:
# kestrelpi serve takes the change over at once, and keeps the last good state if something here is wrong.
# kestrelpi writes this file whole and sorted: comments below this header are lost then (nodes.yaml.bak keeps them).
"""
NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""Names of nodes are host names (RFC 1123 section 2.1), in lower case."""
SERIAL = re.compile(r"[0-9a-f]{8}")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
PIN = re.compile(r"[A-Za-z0-9._-]*")
LINE = re.compile(r"  ([a-z0-9-]+): *\{([^{}#]*)\}(?: *| +#.*)")
PAIR = re.compile(r' *([a-z]+): +("[A-Za-z0-9.:_+ -]*"|[A-Za-z0-9][A-Za-z0-9.:_+ -]*?) *')
NOT_TEXT = re.compile(r"null|.*:( .*)?", re.IGNORECASE)
"""Values that YAML takes for nothing, or for another mapping."""


KEYS = ("mac", "serial", "model", "group", "address", "image", "pin")
"""The order of the fields in the file."""


@dataclass(frozen=True)
class _Entry:
    """A node as the file has it: what `read` fills from YAML."""

    mac: str
    group: str
    address: IPv4Address
    serial: str = ""
    model: str = ""
    image: str = ""
    pin: str = ""


@dataclass(frozen=True)
class _File:
    nodes: Mapping[str, _Entry] = field(default_factory=dict)


def parse(text: str, name: str, config: Config | None = None) -> list[Node]:
    """The nodes in `text`, in its order; `name` is the file's name for errors. Raises ConfigError with file:line."""
    nodes, document = _read(text, name)
    _check(nodes, document, config)
    return nodes


def emit(nodes: Iterable[Node]) -> str:
    """The text of the file: one node a line, in the order given."""
    lines = [f"  {node.name}: {{{_flow(node)}}}\n" for node in nodes]
    return f"{HEADER}nodes:\n{''.join(lines)}" if lines else f"{HEADER}nodes: {{}}\n"


def _read(text: str, name: str) -> tuple[list[Node], Document]:
    """The nodes and where they stand: quick for the lines that `emit` writes, through YAML for everything else."""
    quick = _read_quick(text, name)
    if quick is not None:
        return quick
    file, document = read(text, name, _File)
    nodes = []
    for key, entry in file.nodes.items():
        nodes.append(Node(key, **{one.name: getattr(entry, one.name) for one in fields(entry)}))
    return [_normalised(node, document) for node in nodes], document


def _read_quick(text: str, name: str) -> tuple[list[Node], Document] | None:
    """None unless every line is one of ours: then a regular expression reads in 0.1 s what takes YAML 2 s.

    YAML gives the same, but for errors: whatever is out of order here is read again by the slow way to say what it is.
    """
    document = Document(name, text.splitlines())
    nodes: dict[str, Node] = {}
    begun = False
    for number, line in enumerate(document.lines):
        if not line.strip() or line.lstrip(" ").startswith("#"):
            continue
        if not begun:
            if line != "nodes:":
                return None
            begun = True
            document.positions[("nodes",)] = number
            continue
        node = _quick_node(line)
        if node is None or node.name in nodes:
            return None
        nodes[node.name] = node
        document.positions[("nodes", node.name)] = number
    return (list(nodes.values()), document) if begun else None


@lru_cache(REMEMBERED)
def _quick_node(line: str) -> Node | None:
    match = LINE.fullmatch(line)
    if not match:
        return None
    values: dict[str, str] = {}
    for part in match[2].split(","):
        pair = PAIR.fullmatch(part)
        if not pair or pair[1] not in KEYS or pair[1] in values or NOT_TEXT.fullmatch(pair[2]):
            return None
        values[pair[1]] = pair[2].strip('"')
    try:
        address = IPv4Address(values.pop("address"))
        node = Node(name=match[1], address=address, **values)
    except (KeyError, TypeError, ValueError):
        return None
    plain = node.mac == node.mac.lower() and len(node.mac) == 17 and "-" not in node.mac
    return node if plain and node.serial == node.serial.lower() else None


def _normalised(node: Node, document: Document) -> Node:
    """`node` with its MAC and serial in the one form used everywhere."""
    try:
        mac = parse_mac(node.mac)
    except ValueError:
        document.fail(("nodes", node.name, "mac"), f"{node.mac!r} is no MAC address", "write it as dc:a6:32:01:02:03")
    serial = node.serial.lower().removeprefix("0x")
    return replace(node, mac=mac, serial=serial[-8:] if len(serial) == 16 else serial)


def _check(nodes: Iterable[Node], document: Document, config: Config | None) -> None:
    """Whether it can all be true at once; raises ConfigError at the line of the later of two nodes that clash."""
    macs: dict[object, str] = {}
    addresses: dict[object, str] = {}
    serials: dict[object, str] = {}
    site = _Site.of(config) if config else None
    for node in nodes:
        _check_values(node, document)
        if site:
            _check_site(node, document, site)
        for key, value, seen in (("mac", node.mac, macs), ("address", node.address, addresses)):
            _check_once(node, key, value, seen, document)
        if node.serial:
            _check_once(node, "serial", node.serial, serials, document)


@dataclass(frozen=True)
class _Site:
    """What of the configuration each node is held against; worked out once, not for 10,000 nodes."""

    config: Config
    network: IPv4Network
    addresses: AddressRange | None
    """None: another server's choice."""

    @classmethod
    def of(cls, config: Config) -> _Site:
        addresses = None if config.services.dhcp.proxy else config.node_addresses
        return cls(config, config.network.address.network, addresses)


def _check_once(node: Node, key: str, value: object, seen: dict[object, str], document: Document) -> None:
    if value in seen:
        document.fail(
            ("nodes", node.name, key),
            f"{seen[value]} and {node.name} have the same {key}: {value}",
            "remove one of them",
        )
    seen[value] = node.name


def _check_values(node: Node, document: Document) -> None:
    if _sound(node):
        return
    where = ("nodes", node.name)
    if not NAME.fullmatch(node.name):
        document.fail(where, f"{node.name!r} can't be a host name", "use lower-case letters, digits and '-'")
    try:
        parse_mac(node.mac)
    except ValueError:
        document.fail((*where, "mac"), f"{node.mac!r} is no MAC address", "write it as dc:a6:32:01:02:03")
    if node.serial and not SERIAL.fullmatch(node.serial):
        document.fail((*where, "serial"), f"{node.serial!r} is no serial", "write its last 8 hex digits: 91cdf03d")
    if not PIN.fullmatch(node.pin):
        document.fail((*where, "pin"), f"{node.pin!r} is no generation", "see: kestrelpi images show")


@lru_cache(REMEMBERED)
def _sound(node: Node) -> bool:
    """Whether the values are as this program writes them."""
    serial = not node.serial or SERIAL.fullmatch(node.serial)
    return bool(NAME.fullmatch(node.name) and MAC.fullmatch(node.mac) and serial and PIN.fullmatch(node.pin))


def _check_site(node: Node, document: Document, site: _Site) -> None:
    where = ("nodes", node.name)
    groups, images = site.config.groups, site.config.images
    if node.group not in groups:
        document.fail((*where, "group"), f"there is no group {node.group!r}", f"groups: {', '.join(groups)}")
    if node.image and node.image not in images:
        document.fail((*where, "image"), f"there is no image {node.image!r}", f"images: {', '.join(images)}")
    if node.address not in site.network:
        document.fail((*where, "address"), f"{node.address} is not in the nodes' network {site.network}")
    if site.addresses and node.address not in site.addresses:
        document.fail(
            (*where, "address"),
            f"{node.address} is outside of network.nodes ({site.addresses})",
            "choose an address in it, or widen it in the configuration",
        )


@lru_cache(REMEMBERED)
def _flow(node: Node) -> str:
    pairs = ((key, str(getattr(node, key))) for key in KEYS)
    return ", ".join(f"{key}: {_scalar(value)}" for key, value in pairs if value)


RESOLVER = yaml.resolver.Resolver()


def _scalar(value: str) -> str:
    """Quoted where another reader of YAML would take it for a number: 12345678, 91e10000, 400."""
    tag = RESOLVER.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
    plain = tag == "tag:yaml.org,2002:str" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 .:_+-]*", value)
    return value if plain else f'"{value}"'
