"""Where everything lies on disk. Every path hangs below one root, so a test or a second cluster is another root."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


def data_dir() -> Path:
    """The folder with `phases/`, `modules/`, `overlays/` and `etc/`: the checkout, or share/ of the installation."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "phases").is_dir():
        return checkout
    return Path(sys.prefix) / "share" / "kestrelpi"


@dataclass(frozen=True)
class Paths:
    """The folders of one frontend below `root` (default `/`)."""

    root: Path = Path("/")

    @cached_property
    def etc(self) -> Path:
        return self.root / "etc/kestrelpi"

    @cached_property
    def config(self) -> Path:
        return self.etc / "kestrelpi.yaml"

    @cached_property
    def state(self) -> Path:
        return self.root / "var/lib/kestrelpi"

    @cached_property
    def log(self) -> Path:
        return self.root / "var/log/kestrelpi"

    @cached_property
    def run(self) -> Path:
        return self.root / "run/kestrelpi"

    @cached_property
    def registry(self) -> Path:
        return self.state / "nodes.yaml"

    @cached_property
    def leases(self) -> Path:
        return self.state / "dhcp.leases"

    @cached_property
    def sightings(self) -> Path:
        """What was learned of each MAC (serial, model, memory): a JSON file beside the leases."""
        return self.state / "sightings.json"

    @cached_property
    def wire(self) -> Path:
        """What was heard of other DHCP servers and of spanning tree: a JSON file."""
        return self.state / "wire.json"

    @cached_property
    def boots(self) -> Path:
        """One JSON-lines file a MAC with the stages of its last boots."""
        return self.state / "boots"

    @cached_property
    def images(self) -> Path:
        return self.state / "images"

    @cached_property
    def cache(self) -> Path:
        return self.state / "cache"

    @cached_property
    def secrets(self) -> Path:
        return self.state / "secrets"

    def relative(self, path: Path) -> str:
        """`path` as the machine below `root` sees it: absolute, without the root."""
        return "/" + str(path.relative_to(self.root))
