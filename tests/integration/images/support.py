"""What the image tests look at."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kestrelpi import config
from kestrelpi.images.build import build
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.store import Generation
from kestrelpi.images.watcher import Silent
from kestrelpi.paths import Paths
from tests.program import program


class Recorder(Silent):
    """Keeps what ran."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def done(self, record: StepRecord) -> None:
        self.records.append(record)

    @property
    def ran(self) -> list[str]:
        """Names of the steps that were carried out."""
        return [one.name for one in self.records if not one.cached]


def make(paths: Paths, force: str = "") -> tuple[Generation, Recorder]:
    """Build the default image."""
    seen = Recorder()
    return build(paths, config.load(paths.config), "default", force=force, watch=seen), seen


def mounts_below(folder: Path) -> list[str]:
    """Mounts of this process's namespace at or below `folder`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(str(folder))]


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that hold `text`, and processes whose root or folder lies below it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line:
            found.append(line)
    return found


def start_build(paths: Paths) -> subprocess.Popen[str]:
    """The command itself, in a process of its own."""
    command = program(paths.root, "images", "build", "default")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def drafts(paths: Paths) -> list[Path]:
    """What unfinished builds left on disk."""
    return [*paths.cache.glob("*/.new-*"), *paths.images.glob("*/generations/.new-*"), *paths.images.glob("*/.*.*")]
