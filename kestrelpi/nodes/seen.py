"""What was seen of one Pi: what the rules of nodes.findings look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kestrelpi.finding import Finding, Severity
from kestrelpi.nodes.boots import Boot


@dataclass(frozen=True)
class Seen:
    """What was seen of one Pi."""

    name: str
    """The node's name; of a Pi that isn't registered its MAC."""
    boots: Sequence[Boot]
    """The last ones, oldest first."""
    model: str = ""
    now: float = 0.0

    @property
    def last(self) -> Boot:
        return self.boots[-1]

    def finding(self, name: str, severity: Severity, what: str, cause: str, fix: str) -> Finding:
        return Finding(name, severity, what, cause, fix, self.name, self.last.last)
