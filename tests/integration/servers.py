"""Servers that tests start: they end with their test, also when pytest is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from kestrelpi import run
from kestrelpi.pdeathsig import dies_with_us
from tests.integration.namespaces import Namespace
from tests.program import program

SOURCE = Path(__file__).parents[2]


def started(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
) -> run.Process:
    """A command that runs beside the test, which ends it with `run.stop`."""
    return run.start(dies_with_us(argv, "TERM"), env=env, output=output, cwd=SOURCE)


def serve(root: Path, network: Namespace) -> run.Process:
    """`kestrelpi serve` in a network of its own; what it says goes to the end of `root`/serve.log."""
    with (root / "serve.log").open("ab") as out:
        return started(network.argv(*program(root, "serve")), output=out)
