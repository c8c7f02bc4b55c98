"""Children that don't outlive us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def dies_with_us(argv: Sequence[str | Path]) -> list[str]:
    """`argv` as a command that the kernel kills when its parent dies, however that happens (prctl PR_SET_PDEATHSIG)."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, argv)]
