"""The user's terminal, lent to another program and taken back."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lent() -> Iterator[None]:
    """Afterwards the terminal is ours again, in the state it was in. Does nothing where there is none.

    A shell with job control makes itself the foreground process group (tcsetpgrp(3)). It gives that back when it ends,
    but not from a PID namespace of its own, in which our group has no number: whoever reads the terminal then is
    stopped by SIGTTIN.
    """
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    modes = termios.tcgetattr(terminal)
    try:
        yield
    finally:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])  # only the foreground may do this
        try:
            os.tcsetpgrp(terminal, os.getpgrp())
            termios.tcsetattr(terminal, termios.TCSADRAIN, modes)  # what was typed ahead stays
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
