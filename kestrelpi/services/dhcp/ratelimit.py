"""A bound on how many messages of one sender are looked at."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 16384
"""Senders that are remembered at most."""


class RateLimit:
    """At most `rate` messages a second from one sender, with a second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, who: str, now: float) -> bool:
        """Count one message; False when there were too many.

        Those that are refused cost nothing: else a flood in a Pi's name would keep out every message of its own.
        """
        left, at = self._left.pop(who, (self._rate, now))
        left = min(self._rate, left + max(0.0, now - at) * self._rate)
        allowed = left >= 1
        self._left[who] = (left - 1 if allowed else left, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return allowed
