"""What the supervisor of each Pi writes down, and what others read of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.lab.loader import LoaderReport

TAIL = 8192
"""Bytes of a console that are looked at for its last line."""
BOOT = 262144
"""Bytes of a console that hold one boot."""
WORDS = 6
"""Lines of a boot's end that are shown."""
RESET = "reset"
"""What the supervisor writes on the console when the guest was reset: the next boot's lines follow."""
FATAL = re.compile(r"Kernel panic|kestrelpi: FAILED|emergency mode")
"""What says why a boot ended; a panic's registers and calls come after it."""
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.")
"""Colours and cursor movements (ECMA-48, section 5.4)."""


class State(StrEnum):
    """What an emulated Pi is doing."""

    OFF = "off"
    """No power, or the guest switched itself off."""
    LOADER = "loader"
    """Its boot loader runs."""
    RUNNING = "running"
    """Linux runs in the emulator."""
    RETRYING = "retrying"
    """The boot loader failed and begins again soon."""
    DEAD = "dead"
    """The ROM gave up: only cutting the power helps."""
    BROKEN = "broken"
    """The emulator itself failed."""
    GONE = "gone"
    """Nobody looks after this Pi: its supervisor was killed."""


@dataclass(frozen=True)
class PiState:
    """One emulated Pi."""

    index: int
    model: str
    mac: str
    serial: str
    state: State
    since: float
    """Unix time."""
    pid: int
    """Of the supervisor."""
    born: int
    """When that process started, in clock ticks since the host's boot: no other process has both numbers."""
    boots: int = 0
    """How often its power came on or it was reset."""
    detail: str = ""

    def now(self) -> PiState:
        """This, or `gone` when the supervisor doesn't live any more."""
        if born(self.pid) == self.born:
            return self
        return dataclasses.replace(self, state=State.GONE, detail=f"was {self.state}")


@dataclass(frozen=True)
class PiFolder:
    """The files of one emulated Pi."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def console(self) -> Path:
        """What the boot loader says and what Linux writes on its serial ports."""
        return self.path / "console.log"

    @property
    def downloads(self) -> Path:
        return self.path / "boot"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    def read_state(self) -> PiState:
        """Raises UserError when the supervisor has written nothing."""
        try:
            values = json.loads(self.state.read_text())
        except FileNotFoundError as error:
            raise UserError("there is no such Pi in the lab", where=str(self.path)) from error
        return PiState(**{**values, "state": State(values["state"])})

    def write_state(self, state: PiState) -> None:
        write_whole(self.state, json.dumps(dataclasses.asdict(state)) + "\n")

    def read_report(self) -> LoaderReport | None:
        """The boot loader's last report."""
        if not self.report.exists():
            return None
        return LoaderReport.from_json(self.report.read_text())

    def last_line(self) -> str:
        """The console's last line that isn't empty, without control characters."""
        return next((clean for line in reversed(self._lines(TAIL)) if (clean := printable(line))), "")

    def last_words(self) -> str:
        """The lines with which the last boot that ended did so, else the console's last ones: up to `WORDS`."""
        lines = [clean for line in self._lines(BOOT) if (clean := printable(line))]
        resets = [number for number, line in enumerate(lines) if line.startswith("--- ") and line.endswith(RESET)]
        ended = lines[: resets[-1]] if resets else lines
        begin = resets[-2] + 1 if len(resets) > 1 else 0
        fatal = [number for number, line in enumerate(ended) if number >= begin and FATAL.search(line)]
        return "\n".join((ended[: fatal[0] + 1] if fatal else ended)[-WORDS:])

    def _lines(self, most: int) -> list[str]:
        """Those in the last `most` bytes of the console."""
        if not self.console.exists():
            return []
        with self.console.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - most))
            return file.read().decode(errors="replace").splitlines()


def printable(line: str) -> str:
    """A console's line without colours and control characters."""
    return "".join(letter for letter in ESCAPE.sub("", line) if letter.isprintable()).strip()


def born(pid: int) -> int:
    """When the process started (field 22 of /proc/PID/stat); 0 when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def unix_time() -> float:
    return round(time.time(), 3)


def signal_supervisor(state: PiState, number: signal.Signals) -> None:
    """Send a signal to the process that wrote `state`, never to another one that got its number."""
    descriptor = os.pidfd_open(state.pid)
    try:
        if born(state.pid) == state.born:
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
