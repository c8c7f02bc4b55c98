"""Something that is wrong with a generation."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kestrelpi.finding import Severity


@dataclass(frozen=True)
class Flaw:
    """Something that is wrong with a generation."""

    check: str
    """Which check found it: a name that stays the same."""
    what: str
    where: str
    """The file, or the part of the configuration."""
    fix: str
    about: str = ""
    """The model that it concerns; empty: all."""
    severity: Severity = Severity.ERROR
    """ERROR: the generation is refused. WARNING: only registered nodes are concerned, and they were before."""

    def document(self) -> dict[str, object]:
        """For --json."""
        return {**asdict(self), "severity": self.severity.word}
