"""Children that don't outlive us."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

STILL_OURS = '[ "$PPID" = "$0" ] && exec "$@"'
"""The kernel says nothing of a parent that died before it was asked to: such a child has another parent by now."""


def dies_with_us(argv: Sequence[str | Path], signal: str = "KILL", privileges: Sequence[str] = ()) -> list[str]:
    """`argv` as a command that the kernel sends `signal` when this process ends, however it ends; start it from here.

    `privileges`: options of setpriv(1) that the command runs with. See prctl(2), PR_SET_PDEATHSIG: the parent that
    counts is the thread that starts it.
    """
    words = ["setpriv", "--pdeathsig", signal, *privileges, "sh", "-c", STILL_OURS, str(os.getpid())]
    return [*words, *map(str, argv)]
