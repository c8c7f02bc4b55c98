"""The archives' package indexes, as the frontend's apt fetches, verifies and lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import run
from kestrelpi.images.workshop import Workshop
from kestrelpi.sandbox import Sandbox

MARK = "INDEX"
"""Begins each line about an index, so that apt's other lines are told apart."""
Line = Callable[[str], None]


def lists_folder(shop: Workshop) -> Path:
    """Where the indexes of the image's suite are kept."""
    return shop.archives.parent / "lists" / shop.plan.suite


@dataclass(frozen=True)
class Apt:
    """The frontend's apt with a configuration of its own."""

    shop: Workshop
    box: Sandbox
    config: Path
    places: Sequence[Path]
    """What it may change."""
    log: Path

    def run(self, command: Sequence[str | Path], line: Line) -> list[str]:
        """Run a command of apt's and return its output; `line` hears each line as it comes. Raises CommandFailed."""
        lines: list[str] = []

        def heard(text: str) -> None:
            lines.append(text)
            line(text)

        inside = self.shop.beside(self.box, command, *self.places)
        run.stream(inside, self.log, env={"APT_CONFIG": str(self.config)}, line=heard)
        return lines

    def update(self, fields: str, line: Line) -> list[list[str]]:
        """Fetch the newest indexes; returns `fields` (apt-get(8), indextargets) of each package index."""
        self.run(["apt-get", "update", "--error-on=any"], line)
        form = f"{MARK} {fields}"
        rows = self.run(["apt-get", "indextargets", "--format", form, "Identifier: Packages"], nothing)
        return [row.split()[1:] for row in rows if row.startswith(f"{MARK} ")]


def nothing(text: str) -> None:
    """Some commands say a line for each package: too much for whoever looks on."""
