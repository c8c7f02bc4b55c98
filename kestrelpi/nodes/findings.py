"""What is wrong with a Pi, from what the daemon saw of its boots. Pure: no file is read and no clock asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kestrelpi.finding import Finding, Severity, worst_first
from kestrelpi.nodes import rules_loader, rules_system
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.seen import Seen
from kestrelpi.nodes.sightings import Sighting

Rule = Callable[[Seen], Iterator[Finding]]
RULES: tuple[Rule, ...] = (*rules_loader.RULES, *rules_system.RULES)
EXPLAINS_SILENCE = {"missing-file", "offer-ignored", "no-offer", "pool-full", "gave-up"}


def diagnose(seen: Seen) -> list[Finding]:
    """All that is wrong with a Pi, worst first; nothing when it was never seen."""
    if not seen.boots:
        return []
    found = [finding for rule in RULES for finding in rule(seen)]
    if any(one.name in EXPLAINS_SILENCE for one in found):
        found = [one for one in found if one.name != "fell-silent"]
    return worst_first(found)


def same_serial(sightings: Mapping[str, Sighting], names: Mapping[str, Node]) -> list[Finding]:
    """Boards with one serial: two MACs that were both seen while the other was, by MAC in `names` where registered.

    One board that got another MAC was seen under the old one before, and not again after.
    """
    by_serial: dict[str, list[Sighting]] = {}
    for one in sightings.values():
        if one.serial:
            by_serial.setdefault(one.serial, []).append(one)
    found = []
    for serial, boards in by_serial.items():
        for one in boards:
            others = [two.mac for two in boards if two is not one and one.first <= two.last and two.first <= one.last]
            if others:
                node = names.get(one.mac)
                found.append(
                    Finding(
                        "same-serial",
                        Severity.ERROR,
                        f"{one.mac} and {', '.join(others)} both say that their serial is {serial}",
                        "an EEPROM configuration or an SD card image that sets the serial was copied; a node may get "
                        "the other's files",
                        "compare /proc/device-tree/serial-number on both; register them by MAC, and set TFTP_PREFIX=2",
                        node.name if node else one.mac,
                        one.last,
                    )
                )
    return found
