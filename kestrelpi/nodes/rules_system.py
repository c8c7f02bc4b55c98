"""What goes wrong on the way from the kernel to a node that is ready, and over several boots. Each rule is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kestrelpi.finding import Finding, Severity
from kestrelpi.nodes.boots import FOR_ROOT, Boot, Kind, Stage
from kestrelpi.nodes.failures import explain
from kestrelpi.nodes.seen import Seen
from kestrelpi.nodes.silence import BUDGET, explain_silence

LOOP = 3
"""So many boots within LOOP_SPAN that don't get ready are a loop."""
LOOP_SPAN = 900.0
TURN = 3600.0
"""Seconds for which a Pi that waits its turn is not silent."""
STP_GAP = 15.0
"""Seconds from link to address that only a switch port held by spanning tree (30 s) explains; else it is 1 to 3."""


def silent(seen: Seen) -> Iterator[Finding]:
    boot = seen.last
    quiet = seen.now - boot.last
    budget = BUDGET.get(boot.current)
    if boot.current is Stage.TIME and FOR_ROOT in boot.of(Kind.HELD):
        budget = TURN
    if budget is None or quiet < budget:
        return
    cause, fix = explain_silence(boot)
    broken = boot.of(Kind.BROKEN)
    what = f"it fell silent after {boot.current.value}, {boot.last - boot.started:.0f} s after it was first heard"
    if broken:
        what += f", in the middle of {broken[-1]}"
    yield seen.finding("fell-silent", Severity.ERROR, what, cause, fix)


def loop(seen: Seen) -> Iterator[Finding]:
    if Stage.READY in seen.last.stages or Stage.WAITING in seen.last.stages:
        return
    recent = [boot for boot in seen.boots if boot.started > seen.last.started - LOOP_SPAN]
    loops = [boot for boot in recent if _furthest(boot).rank >= Stage.FIRMWARE.rank and Stage.READY not in boot.stages]
    if len(loops) < LOOP:
        return
    furthest = max((_furthest(boot) for boot in loops), key=lambda stage: stage.rank)
    minutes = (loops[-1].started - loops[0].started) / 60
    yield seen.finding(
        "boot-loop",
        Severity.ERROR,
        f"it began {len(loops)} boots in {minutes:.0f} min and came no further than {furthest.value}",
        "it fails at the same place each time and starts again, or its power supply breaks down under load",
        f"see what stops it behind {furthest.value}: kestrelpi nodes show {seen.name} --boots {len(loops)}; "
        "look at its screen or serial console; try another power supply",
    )


def stp(seen: Seen) -> Iterator[Finding]:
    """The initramfs says when it had a link and when an address; the uptime of its kernel, in seconds."""
    detail = seen.last.details.get(Stage.INITRAMFS, "")
    times = re.fullmatch(r"link ([0-9.]+) s, address ([0-9.]+) s", detail)
    if times is None:
        return
    try:
        gap = float(times[2]) - float(times[1])
    except ValueError:
        return
    if gap >= STP_GAP:
        yield seen.finding(
            "stp-gap",
            Severity.WARNING,
            f"{gap:.0f} s passed between its link and its address",
            "the switch holds a port back after link-up (spanning tree: 30 s); a Pi 3 gives up after 25 s",
            "make the Pis' switch ports edge ports (portfast), or switch spanning tree off there",
        )


def failed(seen: Seen) -> Iterator[Finding]:
    if seen.last.current is Stage.FAILED:
        detail = seen.last.details.get(Stage.FAILED, "it didn't say why")
        cause, fix = explain(detail)
        yield seen.finding("failed-initramfs", Severity.ERROR, f"its initramfs gave up {detail}", cause, fix)


def ready(seen: Seen) -> Iterator[Finding]:
    """What a node that came up says of itself: parts with `; ` between them (overlays/node/…/report)."""
    for part in seen.last.details.get(Stage.READY, "").split("; "):
        if part.startswith("failed units:"):
            unit = part.split()[2] if len(part.split()) > 2 else ""
            yield seen.finding(
                "failed-units",
                Severity.WARNING,
                f"it is up, but {part}",
                "a service of the image doesn't start on this node",
                f"kestrelpi nodes ssh {seen.name} journalctl -b -u {unit}",
            )
        elif part.startswith("low voltage"):
            yield seen.finding(
                "low-voltage",
                Severity.WARNING,
                "its supply voltage fell below 4.63 V in this boot",
                "a weak power supply or PoE hat, or a long or thin cable; the Pi slows down and may crash under load",
                "an official power supply (3: 2.5 A, 4: 3 A, 5: 5 A), a short cable, fewer USB devices",
            )


def waiting(seen: Seen) -> Iterator[Finding]:
    if seen.last.current is Stage.WAITING:
        yield seen.finding(
            "not-registered",
            Severity.HINT,
            "it waits in its initramfs to be registered",
            "nobody has made it a node yet",
            "kestrelpi nodes register GROUP: it boots on by itself",
        )


def _furthest(boot: Boot) -> Stage:
    return max(
        (stage for stage in boot.stages if stage is not Stage.FAILED), key=lambda one: one.rank, default=Stage.DISCOVER
    )


RULES = (failed, loop, silent, stp, ready, waiting)
