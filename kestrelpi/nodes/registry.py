"""The registry: which Pi is which node."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.files import locked, write_whole
from kestrelpi.nodes.node import Node, natural
from kestrelpi.nodes.registry_file import emit, parse
from kestrelpi.paths import Paths

__all__ = ["Edit", "Node", "Registry", "edit", "natural"]


@dataclass(frozen=True)
class Registry:
    """All nodes, in natural order of their names. Immutable: a change makes another registry."""

    nodes: tuple[Node, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Registry:
        return cls(tuple(sorted(nodes, key=lambda node: natural(node.name))))

    @classmethod
    def load(cls, path: Path, config: Config | None = None) -> Registry:
        """The registry in the file `path`; an empty one when there is none.

        Raises ConfigError with file:line. With `config`, groups, images and addresses are checked against it.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls()
        except UnicodeDecodeError as error:
            raise ConfigError(f"byte {error.start} is not UTF-8", where=str(path)) from error
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
        return cls.parse(text, str(path), config)

    @classmethod
    def parse(cls, text: str, name: str = "nodes.yaml", config: Config | None = None) -> Registry:
        """The registry in `text`; `name` is the file's name for errors."""
        return cls.of(parse(text, name, config))

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def by_mac(self) -> Mapping[str, Node]:
        return {node.mac: node for node in self.nodes}

    @cached_property
    def by_serial(self) -> Mapping[str, Node]:
        """Nodes whose serial is known."""
        return {node.serial: node for node in self.nodes if node.serial}

    @cached_property
    def by_address(self) -> Mapping[IPv4Address, Node]:
        return {node.address: node for node in self.nodes}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def with_node(self, node: Node) -> Registry:
        """This registry with `node`, in place of the one of that name.

        Raises UserError when its MAC, address or serial is another node's.
        """
        others = self.without(node.name) if node.name in self.by_name else self
        for what, other in _clashes(node, others):
            raise UserError(f"{what} is already {other.name}'s", fix=f"see: kestrelpi nodes show {other.name}")
        return others._with_new(node)

    def _with_new(self, node: Node) -> Registry:
        """This registry and one more node. Copies the maps: a thousand Pis are registered at once, among 10,000."""
        at = bisect(self.nodes, natural(node.name), key=lambda one: natural(one.name))
        new = Registry((*self.nodes[:at], node, *self.nodes[at:]))
        maps = new.__dict__  # where cached_property looks
        maps["by_name"] = {**self.by_name, node.name: node}
        maps["by_mac"] = {**self.by_mac, node.mac: node}
        maps["by_address"] = {**self.by_address, node.address: node}
        maps["by_serial"] = {**self.by_serial, node.serial: node} if node.serial else self.by_serial
        return new

    def without(self, name: str) -> Registry:
        """This registry less one node; raises KeyError when there is none of that name."""
        gone = self.by_name[name]
        return Registry(tuple(node for node in self.nodes if node is not gone))

    def emit(self) -> str:
        """The text of the file."""
        return emit(self.nodes)


@dataclass
class Edit:
    """What `edit` hands out: assign `registry` to change it."""

    registry: Registry


@contextmanager
def edit(paths: Paths, config: Config | None = None) -> Iterator[Edit]:
    """Lock the registry, load it, and save it whole when the block ends well and has changed it."""
    with locked(paths.registry.with_name("nodes.yaml.lock"), "the registry"):
        before = Registry.load(paths.registry, config)
        change = Edit(before)
        yield change
        if change.registry != before:
            text = change.registry.emit()
            Registry.parse(text, str(paths.registry), config)  # what we write must be what we can read
            _keep_what_people_wrote(paths.registry, before)
            write_whole(paths.registry, text)


def _keep_what_people_wrote(path: Path, registry: Registry) -> None:
    """Copy the file to `nodes.yaml.bak` if it isn't as we write it: its comments would be lost."""
    if path.exists() and (old := path.read_bytes()) != registry.emit().encode():
        write_whole(path.with_name(f"{path.name}.bak"), old)


def _clashes(node: Node, others: Registry) -> Iterator[tuple[str, Node]]:
    if node.mac in others.by_mac:
        yield f"the MAC {node.mac}", others.by_mac[node.mac]
    if node.address in others.by_address:
        yield f"the address {node.address}", others.by_address[node.address]
    if node.serial and node.serial in others.by_serial:
        yield f"the serial {node.serial}", others.by_serial[node.serial]
