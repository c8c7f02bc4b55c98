"""What the checks of a generation look at: gathered once, so that the checks themselves are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images import bootdir, capabilities, cpio, kmod
from kestrelpi.images.initramfs import unpacked
from kestrelpi.images.overrides import Resolved
from kestrelpi.images.sources import overlay
from kestrelpi.images.store import Generation
from kestrelpi.nodes import sightings
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.releasing.boards import BOARDS, Board
from kestrelpi.services.bootfiles import RENDERED, boot_variables
from kestrelpi.templates import render


@dataclass(frozen=True)
class Candidate:
    """A model that should be able to boot the generation."""

    board: Board
    group: str
    who: str
    """Who says so, for people: `groups.rpi.models`, or names of nodes."""
    rendered: Mapping[str, bytes]
    """config.txt and cmdline.txt as it gets them."""
    configured: bool = True
    """The configuration names it; else only the registry does."""


@dataclass(frozen=True)
class Subject:
    """A generation, finished or nearly so, and who should boot it."""

    generation: Generation
    config: Config
    candidates: tuple[Candidate, ...]
    named: bool = True
    """Somebody named the candidates; else they are all models that there are, and one that boots is enough."""
    unrendered: str = ""
    """Why config.txt or cmdline.txt can't be made."""
    unpack: Callable[[Path], bytes] = unpacked
    """How an initramfs becomes an archive."""
    find_capabilities: Callable[[Path], Mapping[str, str]] = capabilities.find

    @property
    def root(self) -> Path:
        return self.generation.root

    @property
    def boot(self) -> Path:
        return self.generation.boot

    @property
    def kernel(self) -> str:
        return self.generation.manifest.kernel

    @property
    def keeps_attributes(self) -> bool:
        """Whether nodes mount the root in a form that carries capabilities: squashfs does, a folder over NFS not."""
        return self.generation.squashfs is not None

    @cached_property
    def initramfs(self) -> Mapping[str, cpio.Entry]:
        """The members of the initramfs; none when it can't be read."""
        path = self.boot / bootdir.INITRAMFS
        if not path.is_file():
            return {}
        try:
            return cpio.unpack(self.unpack(path))
        except (UserError, ValueError):
            return {}

    @cached_property
    def index(self) -> kmod.ModuleIndex | None:
        """The modules of the kernel in the root; None: there are none."""
        try:
            return kmod.load(self.root, self.kernel)
        except UserError:
            return None

    @cached_property
    def capabilities(self) -> Mapping[str, str]:
        """Files of the root that have capabilities."""
        return self.find_capabilities(self.root)


def subject(
    paths: Paths,
    config: Config,
    generation: Generation,
    registry: Registry,
    unpack: Callable[[Path], bytes] = unpacked,
    find_capabilities: Callable[[Path], Mapping[str, str]] = capabilities.find,
) -> Subject:
    """Everything about `generation`. Raises UserError."""
    wanted = list(_wanted(paths, config, generation.image, registry))
    named = bool(wanted)
    if not named:
        groups = [name for name, group in config.groups.items() if group.image == generation.image]
        first = groups[0] if groups else next(iter(config.groups))
        wanted = [(board, first, "every model", True) for board in BOARDS.values()]
    templates = overlay(paths, config, generation.image, "boot")
    try:
        candidates = tuple(
            Candidate(board, group, who, rendered(templates, config, generation, group, board.model), configured)
            for board, group, who, configured in wanted
        )
    except UserError as error:
        return Subject(generation, config, (), named, str(error), unpack, find_capabilities)
    return Subject(generation, config, candidates, named, "", unpack, find_capabilities)


def _wanted(paths: Paths, config: Config, image: str, registry: Registry) -> Iterable[tuple[Board, str, str, bool]]:
    """Model, group, who says so, and whether the configuration does."""
    seen: set[tuple[str, str]] = set()
    for name, group in config.groups.items():
        for wanted in group.models if group.image == image else ():
            seen.add((name, wanted))
            yield BOARDS[wanted], name, f"groups.{name}.models", True
    known = sightings.read(paths.sightings)
    nodes: dict[tuple[str, str], list[str]] = {}
    for node in registry:
        model = node.model or (known[node.mac].model if node.mac in known else "")
        if node.image_of(config) == image and not node.pin and model in BOARDS:
            nodes.setdefault((node.group, model), []).append(node.name)
    for (name, model), names in nodes.items():
        if (name, model) not in seen:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield BOARDS[model], name, ", ".join(names[:3]) + more, False


def rendered(
    templates: Mapping[str, Resolved], config: Config, generation: Generation, group: str, model: str
) -> dict[str, bytes]:
    """config.txt and cmdline.txt of a node of `group`; raises UserError."""
    node = Node(f"{config.prefix(group)}1", "00:00:00:00:00:00", group, IPv4Address(0), model=model)
    variables = boot_variables(config, node, config.groups[group], generation)
    found = {}
    for name in RENDERED:
        if name not in templates:
            raise UserError(f"an empty {name} in /etc/kestrelpi takes it away from every Pi")
        found[name] = render(templates[name].path, variables).encode()
    return found
