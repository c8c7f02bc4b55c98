"""All that is known of each node in one place: for `nodes list` and `nodes show`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kestrelpi.config import Config
from kestrelpi.finding import Finding, Severity, worst_first
from kestrelpi.nodes import boots, sightings
from kestrelpi.nodes.boots import Boot, Kind, Stage
from kestrelpi.nodes.findings import diagnose, same_serial
from kestrelpi.nodes.registry import Node, Registry
from kestrelpi.nodes.seen import Seen
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.paths import Paths

TELLING = 4
"""Boots that a finding's name needs: a loop has three."""


@dataclass(frozen=True)
class Row:
    """One node."""

    node: Node
    image: str
    generation: str
    """The one that it boots next; empty: the image isn't built."""
    sighting: Sighting
    boots: tuple[Boot, ...]
    """The last ones, oldest first."""
    twins: tuple[Finding, ...] = ()
    """What is wrong with its serial: that another board has it too."""

    @property
    def stage(self) -> str:
        """How far its last boot came; empty: it never booted."""
        return self.boots[-1].current.value if self.boots else ""

    def findings(self, now: float) -> list[Finding]:
        """What is wrong with it, the worst first. `now`: Unix time."""
        seen = Seen(self.node.name, self.boots, self.node.model or self.sighting.model, now)
        return worst_first([*self.twins, *diagnose(seen)])

    def trouble(self, now: float) -> str:
        """The name of the worst finding; empty: all is well."""
        return next((one.name for one in self.findings(now) if one.severity > Severity.HINT), "")

    @property
    def last_seen(self) -> float:
        """Unix time; 0: never."""
        return max((self.sighting.last, *(boot.last for boot in self.boots)))

    def document(self) -> dict[str, object]:
        """For --json."""
        node = self.node
        return {
            "name": node.name,
            "mac": node.mac,
            "serial": node.serial,
            "model": node.model or self.sighting.model,
            "memory_mb": self.sighting.memory_mb,
            "address": str(node.address),
            "group": node.group,
            "image": self.image,
            "generation": self.generation,
            "pin": node.pin,
            "stage": self.stage,
            "last_seen": self.last_seen,
        }


def rows(
    paths: Paths, config: Config, registry: Registry, offered: Callable[[str, str], str], *, whole: bool = True
) -> list[Row]:
    """A row a node, in natural order of the names. `offered`: image and group to the id of what it boots there.

    `whole`: with all boots; else only those that tell what is wrong with it, which are quicker to read.
    """
    known = sightings.read(paths.sightings)
    generations = {key: offered(*key) for key in {(node.image_of(config), node.group) for node in registry}}
    twins = {one.node: (one,) for one in same_serial(known, registry.by_mac)}
    return [_row(paths, config, node, known, generations, twins.get(node.name, ()), whole) for node in registry]


def _row(
    paths: Paths,
    config: Config,
    node: Node,
    known: Mapping[str, Sighting],
    generations: Mapping[tuple[str, str], str],
    twins: tuple[Finding, ...],
    whole: bool,
) -> Row:
    image = node.image_of(config)
    return Row(
        node=node,
        image=image,
        generation=node.pin or generations[image, node.group],
        sighting=known.get(node.mac) or Sighting(node.mac),
        boots=tuple(_boots(paths, node, whole)),
        twins=twins,
    )


def _boots(paths: Paths, node: Node, whole: bool) -> list[Boot]:
    last = [] if whole else boots.read(paths.boots, node.mac, 1)
    if last and Stage.READY in last[-1].stages:
        return last
    return boots.read(paths.boots, node.mac, boots.KEPT if whole else TELLING)


def boot_document(boot: Boot) -> dict[str, object]:
    """One boot for --json: seconds from its start to each stage."""
    return {
        "started": boot.started,
        "current": boot.current.value,
        "stages": boots.summary(boot),
        "details": {stage.value: detail for stage, detail in boot.details.items()},
        "notes": [{"note": note.kind.value, "at": note.at, "detail": note.detail} for note in boot.notes],
    }


UNREMARKABLE = (Kind.FILE,)
"""Notes that are only there to be compared with others."""


def timeline(boot: Boot) -> list[tuple[str, str, str]]:
    """Stages and notes of one boot in the order of their times: what, seconds, detail."""
    stages = [(at, stage.value, boot.details.get(stage, "")) for stage, at in boot.stages.items()]
    notes = [(note.at, f"  {note.kind.value}", note.detail) for note in boot.notes if note.kind not in UNREMARKABLE]
    return [(what, f"{at:.1f}", detail) for at, what, detail in sorted([*stages, *notes], key=lambda one: one[0])]
