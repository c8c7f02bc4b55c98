"""What `kestrelpi apt` did to an image: a line of JSON for each time, and how to take one back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images.compare import Change
from kestrelpi.paths import Paths

NAME = "apt-history.jsonl"


@dataclass(frozen=True)
class Entry:
    """One time."""

    id: int
    when: str
    """ISO 8601, UTC."""
    who: str
    action: str
    """`install`, `remove`, `upgrade`, or `undo 3`."""
    names: tuple[str, ...]
    """The packages that were named."""
    before: str
    """The generation that was current; empty: none."""
    after: str
    """The generation that was built."""
    changes: tuple[Change, ...]
    list_before: str
    """The text of the list that kestrelpi apt writes."""
    list_after: str
    forced_before: Mapping[str, str] = field(default_factory=dict)
    """Which phases had been forced to run anew, and when."""


def path_of(paths: Paths, image: str) -> Path:
    return paths.images / image / NAME


def read(path: Path) -> list[Entry]:
    """All entries, the oldest first."""
    if not path.is_file():
        return []
    return [_entry(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(**{**raw, "changes": tuple(Change(**one) for one in raw["changes"]), "names": tuple(raw["names"])})


def append(path: Path, entry: Entry) -> Entry:
    """Add an entry under the next number."""
    entries = read(path)
    numbered = replace(entry, id=entries[-1].id + 1 if entries else 1)
    lines = [json.dumps(asdict(one)) for one in (*entries, numbered)]
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return numbered


def find(path: Path, id: int | None) -> Entry:
    """The entry with this number; without one the last. Raises UserError."""
    entries = read(path)
    found = [one for one in entries if id is None or one.id == id]
    if not found:
        what = f"there is no entry {id} in the history" if id else "the history is empty"
        known = ", ".join(str(one.id) for one in entries)
        raise UserError(what, where=str(path), fix=f"entries: {known}" if known else "")
    return found[-1]
