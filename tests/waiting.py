"""Waiting for what must come."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(check: Callable[[], object], what: object, seconds: float, pause: float = 0.05) -> None:
    """Look every `pause` seconds; fail when `check` found nothing for `seconds`.

    `what` says what hasn't come; a function is called for it then, such as one that reads a log.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(pause)
