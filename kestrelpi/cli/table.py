"""Tables, times and findings for people: aligned columns, whole values where the output isn't a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import click

from kestrelpi.finding import Finding, Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.HINT: "blue"}

WIDE = 1000
"""Columns of a pipe: nothing is cut or wrapped there."""


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output; colour only on a terminal and without NO_COLOR."""
    from rich.console import Console  # slow to import, and not every command prints a table
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell or "-" for cell in row))
    console.print(table)


def ago(when: float, now: float | None = None) -> str:
    """How long ago Unix time `when` was; a dash for never."""
    if not when:
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - when)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def print_finding(finding: Finding) -> None:
    """What happened, the likely cause, the fix; a blank line before it."""
    head = click.style(finding.severity.word.upper(), fg=COLOURS[finding.severity], bold=True)
    when = f" ({ago(finding.at)})" if finding.at else ""
    click.echo(f"\n{head} {finding.name}: {finding.node or 'frontend'}{when}")
    for key in ("what", "cause", "fix"):
        click.echo(f"  {key:6} {getattr(finding, key)}")
