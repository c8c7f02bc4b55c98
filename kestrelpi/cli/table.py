"""Tables, times and findings for people: aligned columns, whole values where the output isn't a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

import click

from kestrelpi.cli.context import Context
from kestrelpi.finding import Finding, Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.HINT: "blue"}

GAP = 2
"""Columns between two cells."""
NARROWEST = 8
"""Columns that a cell keeps on a narrow terminal."""


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output, 10,000 rows in a blink. On a terminal cells that are too wide are folded and
    the headings are bold, unless NO_COLOR is set; elsewhere values stay whole, a row a line.
    """
    every = [tuple(headings), *(tuple(cell or "-" for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    if sys.stdout.isatty():
        _narrow(widths, shutil.get_terminal_size().columns)
    lines = [line for row in every[1:] for line in _lines(row, widths)]
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for heading in _lines(every[0], widths):
        click.echo(click.style(heading, bold=True) if bold else heading)
    if lines:
        click.echo("\n".join(lines))


def _narrow(widths: list[int], columns: int) -> None:
    """Take from the widest cells until all fit."""
    while sum(widths) + GAP * (len(widths) - 1) > columns and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """A row, on as many lines as its highest cell needs."""
    height = max(-(-len(cell) // width) for cell, width in zip(row, widths, strict=True)) if row else 0
    for line in range(max(height, 1)):
        parts = [cell[line * width : (line + 1) * width].ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield (" " * GAP).join(parts).rstrip()


def ago(when: float, now: float | None = None) -> str:
    """How long ago Unix time `when` was; a dash for never."""
    if not when:
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - when)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def print_finding(ctx: Context, finding: Finding) -> None:
    """What happened, the likely cause, the fix; a blank line before it."""
    head = click.style(finding.severity.word.upper(), fg=COLOURS[finding.severity], bold=True)
    when = f" ({ago(finding.at)})" if finding.at else ""
    click.echo(f"\n{head} {finding.name}: {finding.node or 'frontend'}{when}")
    for key in ("what", "cause", "fix"):
        click.echo(f"  {key:6} {ctx.as_called(getattr(finding, key))}")
