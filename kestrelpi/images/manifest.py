"""What a generation says about itself: in manifest.json, and in build.json about how it was made.

manifest.json is a bill of materials (images/sbom.py); what kestrelpi itself wants to know is an annotation there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kestrelpi.errors import UserError

NAME = "manifest.json"
ANNOTATOR = "Tool: kestrelpi"
"""What the annotator of our annotation begins with; its version follows."""


@dataclass(frozen=True)
class BootFileInfo:
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What kestrelpi notes in manifest.json."""

    id: str
    image: str
    suite: str
    created: str
    """ISO 8601, UTC."""
    kernel: str
    """Version, as in /lib/modules."""
    packages: Mapping[str, str]
    """Name → version."""
    boot: Mapping[str, BootFileInfo]
    """Path below boot/ → what it must be."""
    keys: tuple[str, ...]
    """The keys of the layers, the lowest first."""
    files: int = 0
    """Number of files in the root."""
    modules: tuple[str, ...] = ()
    boot_key: str = ""
    """What went into boot/."""
    tree: str = ""
    """The root's tree hash (images/tree.py)."""

    def to_json(self) -> str:
        """The annotation's comment."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Out of a bill of materials; raises UserError when it isn't one of ours."""
        notes = json.loads(path.read_text(encoding="utf-8")).get("annotations", [])
        ours = [one["comment"] for one in notes if one["annotator"].startswith(ANNOTATOR)]
        if not ours:
            fix = f"remove the folder {path.parent}, and build the image again"
            raise UserError("an older kestrelpi made this generation", where=str(path), fix=fix)
        raw = json.loads(ours[0])
        boot = {name: BootFileInfo(**info) for name, info in raw.pop("boot").items()}
        keys, modules = tuple(raw.pop("keys")), tuple(raw.pop("modules"))
        return cls(**raw, boot=boot, keys=keys, modules=modules)


@dataclass(frozen=True)
class StepRecord:
    """One step of a build, as build.json keeps it."""

    phase: str
    name: str
    origin: str
    path: str
    overrides: tuple[str, ...]
    key: str
    cached: bool
    stale: str
    """Which field made the cached layer useless; empty when it was used."""
    seconds: float
    log: str


@dataclass(frozen=True)
class BuildRecord:
    """build.json."""

    started: str
    seconds: float
    steps: tuple[StepRecord, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> BuildRecord:
        raw = json.loads(path.read_text(encoding="utf-8"))
        steps = tuple(StepRecord(**{**one, "overrides": tuple(one["overrides"])}) for one in raw["steps"])
        return cls(raw["started"], raw["seconds"], steps)


def installed_packages(status: str) -> dict[str, str]:
    """Name → version out of dpkg's status file (deb-status: one stanza a package), sorted."""
    found = {}
    for stanza in status.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in stanza.splitlines() if line[:1] not in (" ", "\t"))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))
