"""What came of a generation's test in the lab: test.json in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.images.store import Generation


@dataclass(frozen=True)
class CheckOutcome:
    """One line of the test."""

    name: str
    ok: bool
    seconds: float
    detail: str


@dataclass(frozen=True)
class Outcome:
    """test.json."""

    when: str
    """ISO 8601, UTC."""
    model: str
    """Which Pi was emulated, as `lab up --model` calls it."""
    stages: dict[str, float]
    """Seconds from the first DHCP packet to each stage."""
    checks: tuple[CheckOutcome, ...]
    log: str = ""
    """The folder with what the Pi's console and the services said."""

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(one.ok for one in self.checks)

    def document(self) -> dict[str, object]:
        """For --json."""
        return {**asdict(self), "passed": self.passed}


def path(generation: Generation) -> Path:
    return generation.folder / "test.json"


def read(generation: Generation) -> Outcome | None:
    """The last test of a generation; None: it was never tested."""
    try:
        raw = json.loads(path(generation).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    checks = tuple(CheckOutcome(**one) for one in raw["checks"])
    return Outcome(raw["when"], raw["model"], raw["stages"], checks, raw.get("log", ""))


def keep(generation: Generation, outcome: Outcome) -> None:
    """Write down what came of a test."""
    write_whole(path(generation), json.dumps(asdict(outcome), indent=1) + "\n")
