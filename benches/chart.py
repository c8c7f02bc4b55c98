"""A line chart as SVG: both axes logarithmic, a line a series, its name at its end. For the pictures in docs/."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 44, 52
COLOURS = ("#b5293c", "#2b6cb0", "#2f855a", "#8a6d00")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, drawn from pixel `begin` to pixel `end`."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return round(self.begin + share * (self.end - self.begin), 1)


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]


def chart(title: str, across: str, up: str, series: Mapping[str, Points], limit: tuple[str, Points]) -> str:
    """The SVG. `limit` is drawn dashed, for comparison."""
    every = [point for points in (*series.values(), limit[1]) for point in points]
    x = Axis(min(x for x, _ in every) / 1.1, max(x for x, _ in every) * 1.1, LEFT, WIDTH - RIGHT)
    y = Axis(min(y for _, y in every) / 1.3, max(y for _, y in every) * 1.3, HEIGHT - BOTTOM, TOP)
    columns = sorted({at for points in series.values() for at, _ in points})
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    middle, bottom = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12
    turned = f'transform="translate(16 {HEIGHT / 2}) rotate(-90)"'
    lines = [
        f'{head} font-family="sans-serif" font-size="12">',
        f"  <title>{escape(title)}</title>",
        f'  <rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'  <text x="{LEFT}" y="24" font-size="15" fill="#222">{escape(title)}</text>',
        *_grid(x, y, columns),
        f'  <text x="{middle}" y="{bottom}" text-anchor="middle" fill="#444">{escape(across)}</text>',
        f'  <text {turned} text-anchor="middle" fill="#444">{escape(up)}</text>',
        _line(x, y, limit[1], "#777", ' stroke-dasharray="5 4"'),
    ]
    ends = [(limit[0], limit[1], "#777")]
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        lines.append(_line(x, y, points, colour, ""))
        lines += [f'  <circle cx="{x.at(a)}" cy="{y.at(b)}" r="3.5" fill="{colour}"/>' for a, b in points]
        ends.append((name, points, colour))
    lines += _names(x, y, ends)
    return "\n".join([*lines, "</svg>", ""])


def _grid(x: Axis, y: Axis, columns: Sequence[float]) -> Iterator[str]:
    for at in columns:
        yield f'  <line x1="{x.at(at)}" y1="{TOP}" x2="{x.at(at)}" y2="{HEIGHT - BOTTOM}" stroke="#e6e6e6"/>'
        yield f'  <text x="{x.at(at)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#444">{at:g}</text>'
    for at in ticks(y.low, y.high):
        yield f'  <line x1="{LEFT}" y1="{y.at(at)}" x2="{WIDTH - RIGHT}" y2="{y.at(at)}" stroke="#e6e6e6"/>'
        yield f'  <text x="{LEFT - 8}" y="{y.at(at) + 4}" text-anchor="end" fill="#444">{at:g}</text>'


def _line(x: Axis, y: Axis, points: Points, colour: str, more: str) -> str:
    path = " ".join(f"{x.at(a)},{y.at(b)}" for a, b in points)
    return f'  <polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{more}/>'


def _names(x: Axis, y: Axis, ends: Sequence[tuple[str, Points, str]]) -> Iterator[str]:
    """At the ends of the lines, moved apart where they would touch."""
    free = float(TOP)
    for name, points, colour in sorted(ends, key=lambda one: y.at(one[1][-1][1])):
        across, up = points[-1]
        place = max(y.at(up) + 4, free)
        free = place + 15
        yield f'  <text x="{x.at(across) + 8}" y="{place:.1f}" fill="{colour}">{escape(name)}</text>'
