"""Something that was found wrong: what happened, the likely cause, the fix. Of a node (nodes.findings) or of the
frontend (frontend.checks)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is; the worst is the highest. `kestrelpi doctor` ends with the value of the worst."""

    HINT = 0
    """Good to know; nothing is wrong."""
    WARNING = 1
    """It works, but not well, or not for long."""
    ERROR = 2
    """It keeps a Pi, or all of them, from booting."""

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """One finding. `name` is stable: scripts and tests rely on it; docs/how-to/a-pi-does-not-come-up.md lists all."""

    name: str
    severity: Severity
    what: str
    """What happened."""
    cause: str
    """The likely cause."""
    fix: str
    node: str = ""
    """The node's name, or the MAC of a Pi that isn't registered; empty: the frontend."""
    at: float = 0.0
    """Unix time; 0: now."""

    def document(self) -> dict[str, object]:
        """For --json."""
        return {**asdict(self), "severity": self.severity.word}


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings before hints; in each the frontend's first, for they explain the nodes'."""
    return sorted(findings, key=lambda one: (-one.severity, bool(one.node)))


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity; HINT when there are none."""
    return max((one.severity for one in findings), default=Severity.HINT)
