"""A user's mistake, and the exit statuses. Anything else that escapes is a bug and shows a traceback."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What the shell sees. Stable: scripts rely on it."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_CONFIGURATION = 3


class UserError(Exception):
    """Something that the user can mend: *what* happened, *where* (a file:line or a path), and *what to do*."""

    status = ExitStatus.FAILED

    def __init__(self, what: str, *, where: str = "", fix: str = "", detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix
        self.detail = detail

    def __str__(self) -> str:
        """One to a few lines: `where: what`, then the detail (an excerpt) and the fix."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.detail:
            lines += [f"    {line}" for line in self.detail.splitlines()]
        if self.fix:
            lines.append(f"  {self.fix}")
        return "\n".join(lines)


class ConfigError(UserError):
    """The configuration or the registry doesn't say something that can be carried out."""

    status = ExitStatus.BAD_CONFIGURATION
