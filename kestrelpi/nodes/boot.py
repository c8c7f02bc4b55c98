"""One boot of a Pi: the stages that it reached, and what was seen in it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import StrEnum

PAUSE = 10.0
"""A DISCOVER after so many seconds of silence begins a new boot."""
NOTES = 60
"""Notes kept of one boot: what a Pi asks for comes from the network too."""


class Stage(StrEnum):
    """How far a boot has come, in this order."""

    DISCOVER = "discover"
    OFFER = "offer"
    REQUEST = "request"
    FIRMWARE = "firmware"
    """The first file."""
    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    WAITING = "waiting"
    """In the initramfs, for somebody to register it."""
    ROOT = "root"
    OVERLAY = "overlay"
    TIME = "time"
    SERVICES = "services"
    READY = "ready"
    FAILED = "failed"

    @property
    def rank(self) -> int:
        return RANKS[self]


RANKS = {stage: rank for rank, stage in enumerate(Stage)}


class Kind(StrEnum):
    """What a note is about; nodes.findings says what it means."""

    FILE = "file"
    """A file that a boot can't do without was sent. Detail: its name."""
    MISSING = "missing"
    """A file that was asked for and isn't there. Detail: its name."""
    BROKEN = "broken"
    """A transfer whose client fell silent. Detail: the file's name and how much of it was sent."""
    AGAIN = "again"
    """A DISCOVER although we had made an offer. Detail: its number."""
    FOREIGN = "foreign"
    """Another server made this Pi an offer, or was taken by it. Detail: `dhcp ADDRESS`, `proxy ADDRESS` or
    `taken ADDRESS`."""
    NO_ADDRESS = "no-address"
    """network.pool has none left."""
    HELD = "held"
    """It was kept waiting, because as many others loaded as the link carries. Detail: FOR_OFFER or FOR_ROOT."""
    GAVE_UP = "gave-up"
    """It was kept waiting for its offer, and hasn't asked since."""
    SAME_MAC = "same-mac"
    """Another board speaks with this MAC. Detail: both serials."""
    OLD_EEPROM = "old-eeprom"
    """What shows that the boot loader is old. Detail: which sign."""


FOR_OFFER, FOR_ROOT = "its offer", "its root"
"""What a Pi waits for while others load."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was seen in a boot and is no stage."""

    kind: Kind
    at: float
    """Seconds since the boot began."""
    detail: str = ""


@dataclass
class Boot:
    """One boot: when it began, and the seconds from then to each stage that it reached."""

    started: float
    """Unix time."""
    stages: dict[Stage, float] = field(default_factory=dict)
    """Seconds since `started`, in the order in which they were recorded."""
    details: dict[Stage, str] = field(default_factory=dict)
    """The last detail of a stage that had one."""
    notes: list[Note] = field(default_factory=list)
    last: float = 0.0
    """Unix time of the last record."""
    failures: int = 0
    number: int = 0
    """Counts the boots of a MAC: the clock may be set back between two of them."""

    @property
    def current(self) -> Stage:
        """The stage that was reached last."""
        return next(reversed(self.stages), Stage.DISCOVER)

    def add(self, stage: Stage, at: float, detail: str) -> None:
        if stage is Stage.FAILED:
            self.failures += 1
            self.stages.pop(stage, None)
        if stage not in self.stages:
            # Milliseconds; not by round(), which takes four times as long: `nodes list` reads 10,000 boots.
            self.stages[stage] = int((at - self.started) * 1000 + 0.5) / 1000 if at > self.started else 0.0
        if detail:
            self.details[stage] = detail
        if at > self.last:
            self.last = at

    def of(self, kind: Kind) -> list[str]:
        """The details of all notes of a kind."""
        return [note.detail for note in self.notes if note.kind is kind]

    def note(self, kind: Kind, at: float, detail: str) -> bool:
        """Add a note; False when it stands there already or there are too many."""
        if len(self.notes) >= NOTES or any(one.kind is kind and one.detail == detail for one in self.notes):
            return False
        self.notes.append(Note(kind, max(0.0, round(at - self.started, 3)), sys.intern(detail)))
        self.last = max(self.last, at)
        return True

    def ended_by(self, stage: Stage, at: float) -> bool:
        """Whether `stage`, reported at `at`, belongs to the next boot.

        Firmware isn't fetched twice in one boot once the root or the waiting loop was reached: that holds even where
        somebody else's DHCP server hides the DISCOVER from us.
        """
        reached = max((one.rank for one in self.stages), default=-1)
        if stage is Stage.DISCOVER:
            return at - self.last > PAUSE or reached >= Stage.KERNEL.rank
        return stage is Stage.FIRMWARE and reached >= Stage.WAITING.rank
