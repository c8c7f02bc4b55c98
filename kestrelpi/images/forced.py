"""Which phases of an image were forced to run anew, and when last: it goes into their keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.paths import Paths


def path_of(paths: Paths, image: str) -> Path:
    return paths.images / image / "forced.json"


def read(paths: Paths, image: str) -> dict[str, str]:
    """Phase → moment."""
    path = path_of(paths, image)
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def write(paths: Paths, image: str, moments: Mapping[str, str]) -> None:
    if moments or path_of(paths, image).is_file():
        write_whole(path_of(paths, image), json.dumps(moments, indent=1) + "\n")


def remember(paths: Paths, image: str, phase: str, phases: Sequence[str]) -> None:
    """Give a phase a new key from now on, so that its old layers and those above aren't used again."""
    moments = {**read(paths, image), phase: datetime.now(UTC).isoformat()}
    later = phases[phases.index(phase) + 1 :]
    write(paths, image, {name: moment for name, moment in moments.items() if name not in later})
