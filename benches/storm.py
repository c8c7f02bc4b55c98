"""A room of Pis switched on at once, with turns and without, in simulated time: a table, and a plot as SVG.

    python benches/storm.py [--clients 16,64,256,1000] [--svg docs/explanation/storms.svg]

Mixed models on 1 Gbit/s (kestrelpi/lab/storm.py says what is real and what is modelled). Nothing is asserted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.lab.room import LONGEST
from kestrelpi.lab.storm import Result, storm

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 740, 50, 350
SECONDS = (30, 60, 120, 300, 600, 1200, 3600)
COLOURS = {"with turns": "#2f7d36", "without turns": "#b3123b", "bytes ÷ link": "#444"}


def main() -> None:
    """Simulate, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="16,32,64,128,256,500,1000")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    counts = [int(one) for one in options.clients.split(",")]
    print(f"{'Pis':>5} {'':13} {'up':>5} {'last s':>7} {'÷ link':>7} {'had to wait':>12} {'second try':>11} "
          f"{'late files':>11} {'GB carried':>11} {'took s':>7}")  # fmt: skip
    rows = {count: {held: row(count, held) for held in (True, False)} for count in counts}
    if options.svg:
        write_whole(options.svg, plot(rows))


def row(count: int, held: bool) -> Result:
    """Simulate one room, and print its line. `÷ link`: seconds to the last Pi over bytes ÷ link."""
    begun = time.process_time()
    result = storm(count, held=held)
    late = sum(one.late_files for one in result.outcomes)
    again = sum(one.tries > 1 for one in result.outcomes)
    took = time.process_time() - begun
    whole = result.booted == count
    print(f"{count:5} {'with turns' if held else 'without turns':13} {result.booted:5} "
          f"{result.last if whole else math.inf:7.0f} {result.ratio if whole else math.inf:7.2f} {result.held:12} "
          f"{again:11} {late:11} {result.carried / 1e9:11.1f} {took:7.1f}", flush=True)  # fmt: skip
    return result


@dataclass(frozen=True)
class Axes:
    """Both axes are logarithmic."""

    counts: Sequence[int]

    def x(self, count: float) -> float:
        first, last = math.log(self.counts[0]), math.log(self.counts[-1])
        return LEFT + (RIGHT - LEFT) * (math.log(count) - first) / (last - first)

    def y(self, seconds: float) -> float:
        first, last = math.log(SECONDS[0] / 2), math.log(SECONDS[-1])
        return BOTTOM - (BOTTOM - TOP) * (math.log(max(seconds, SECONDS[0] / 2)) - first) / (last - first)


def plot(rows: dict[int, dict[bool, Result]]) -> str:
    """Pis against seconds to the last one that is up; a cross: some never came up within LONGEST."""
    axes = Axes(sorted(rows))
    lines = {
        "bytes ÷ link": [(count, row[True].least) for count, row in rows.items()],
        "without turns": [(count, seconds(row[False])) for count, row in rows.items()],
        "with turns": [(count, seconds(row[True])) for count, row in rows.items()],
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d" '
        'font-family="DejaVu Sans, sans-serif" font-size="14">',
        '<title id="t">Seconds until the last Pi of a room is up</title>',
        '<desc id="d">Simulated rooms of mixed models on 1 Gbit/s, with and without turns, and what the link needs at '
        "least. A cross: some Pis never came up.</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        '<text x="16" y="28" font-weight="bold">Seconds from power-on to the last Pi (simulated, 1 Gbit/s)</text>',
    ]
    for value in SECONDS:
        at = axes.y(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 5:.1f}" text-anchor="end">{value}</text>')
    for count in axes.counts:
        parts.append(f'<text x="{axes.x(count):.1f}" y="{BOTTOM + 22}" text-anchor="middle">{count}</text>')
    for number, (name, points) in enumerate(lines.items()):
        parts += drawn(axes, name, points, 200 * number)
    return "\n".join([*parts, "</svg>", ""])


def seconds(result: Result) -> float:
    """To the last Pi; LONGEST when one never came up."""
    return result.last if result.booted == len(result.outcomes) else LONGEST


def drawn(axes: Axes, name: str, points: Sequence[tuple[int, float]], shift: int) -> list[str]:
    """One line with its entry in the legend."""
    colour = COLOURS[name]
    path = "L".join(f"{axes.x(count):.1f} {axes.y(value):.1f}" for count, value in points)
    dashes = ' stroke-dasharray="6 4"' if name == "bytes ÷ link" else ""
    found = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    for count, value in points:
        x, y = axes.x(count), axes.y(value)
        if value >= LONGEST:
            found.append(f'<path d="M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12" stroke="{colour}" stroke-width="3"/>')
        elif not dashes:
            found.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
    at = LEFT + shift
    found.append(f'<path d="M{at} {HEIGHT - 20}h30" stroke="{colour}" stroke-width="2"{dashes}/>')
    found.append(f'<text x="{at + 38}" y="{HEIGHT - 15}">{name}</text>')
    return found


if __name__ == "__main__":
    main()
