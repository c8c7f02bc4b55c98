"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(check: Callable[[], object], what: object, seconds: float, pause: float = 0.05) -> None:
    """Look every `pause` seconds; `what` says what hasn't come when it didn't within `seconds`."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
