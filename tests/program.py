"""The program as a user runs it."""

from __future__ import annotations

import sys
from pathlib import Path


def program(root: Path, *words: str | Path) -> list[str]:
    """The command line of kestrelpi in a process of its own, with everything below `root`."""
    return [sys.executable, "-m", "kestrelpi", "--root", str(root), *map(str, words)]
