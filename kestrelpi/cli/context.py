"""What every command gets: the paths, the configuration, and how to print."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from kestrelpi import config
from kestrelpi.cli.nouns import NOUNS
from kestrelpi.paths import Paths

COMMAND = re.compile(rf"\bkestrelpi (?=(?:{'|'.join(NOUNS)})\b)")
"""The beginning of a command in a text."""


@dataclass
class Context:
    """The global options."""

    paths: Paths
    config_path: Path
    json: bool
    verbose: bool

    @cached_property
    def config(self) -> config.Config:
        """Read when a command first asks, so that `--help` and `lab down` work with a broken file."""
        return config.load(self.config_path)

    def as_called(self, text: str) -> str:
        """`text` with this call's --root and --config in each kestrelpi command that it names: to be pasted."""
        words = ["kestrelpi"]
        if self.paths.root != Path("/"):
            words += ["--root", str(self.paths.root)]
        if self.config_path != self.paths.config:
            words += ["--config", str(self.config_path)]
        return COMMAND.sub(lambda _: shlex.join(words) + " ", text)

    def say(self, text: str) -> None:
        """A message: on standard error, so that --json's document stays alone on standard output."""
        # not err=True, which goes past what a live display has put in place of sys.stderr, and is drawn over
        click.echo(self.as_called(text), file=sys.stderr)

    def document(self, value: Any) -> None:
        """Print the one JSON document of `--json`; a list has one element a line."""
        if isinstance(value, list):  # 10,000 nodes: without `indent` json is in C, and three times as fast
            text = ",\n".join(json.dumps(one, default=str) for one in value)
            sys.stdout.write(f"[\n{text}\n]\n" if value else "[]\n")
            return
        json.dump(value, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")


pass_context = click.make_pass_decorator(Context)
