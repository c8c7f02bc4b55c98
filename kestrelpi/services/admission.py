"""Who may load now, when a whole room is switched on: as many Pis as the link carries; the others wait their turn.

Two gates. A boot loader that asks for an address waits for its offer, within the time that it keeps asking: files over
TFTP have a time limit each, and too many transfers at once would all miss it. A Pi in its initramfs waits for its root,
which is the larger part and has no time limit. Boot loaders come first, because only they can give up.

Pure: it is told what happens and what time it is. docs/explanation/storms.md has the reasons and a picture.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from itertools import islice

from kestrelpi.nodes.boots import Stage

FILE_TIME = 30.0
"""Seconds that a Pi gives one file (TFTP_FILE_TIMEOUT)."""
LARGEST = 14_000_000
"""Bytes of the largest file, the kernel; Debian's have 11 to 13.6 MB."""
FILES_SHARE = LARGEST / (FILE_TIME / 2)
"""Bytes a second for a Pi that loads files: the largest one takes half of its time limit."""
CROWDED = 1.6
"""So many times more Pis than that are let in at most for an EEPROM's time that ends: a file still arrives in time."""
ROOT_SHARE = 2_000_000.0
"""Bytes a second for a Pi that starts from its root: 135 MB within systemd's usual limit of 90 s."""
ROOT_LEAST = 0.1
"""The part of the link that roots may have while boot loaders wait."""
AT_LEAST = 16
"""So many Pis never wait, however slow the link is said to be."""
UNHEARD, SILENT_FILES, SILENT_ROOT = 15.0, 45.0, 180.0
"""Seconds after which a Pi doesn't count any more: it asked for no file after its offer; nothing is heard of it."""
GONE = 60.0
"""Seconds without a DISCOVER after which a Pi that was kept waiting has given up."""
ROOT_GONE = 15.0
"""Seconds without a question after which a Pi that waits for its root is gone: it asks every 5."""
ROOTED = (Stage.ROOT, Stage.OVERLAY, Stage.SERVICES)
LOADED = (Stage.KERNEL, Stage.INITRAMFS, Stage.TIME, Stage.WAITING)
REMEMBERED = 16384


@dataclass(frozen=True)
class Patience:
    """How long a boot loader asks for an address."""

    seconds: float
    interval: float
    """Between two DISCOVERs."""
    final: bool
    """Whether it is dead after that until its power is cut."""
    answering: float = 0.0
    """Seconds from our decision to our offer."""
    light: bool = False
    """Whether it loads only 52 KB, and then asks again as another boot loader."""

    @property
    def held(self) -> float:
        """Seconds that it may be kept waiting: then two more tries are left, should an offer or an answer be lost."""
        return self.seconds - 2 * self.interval - self.answering


ROM = Patience(25.0, 5.0, final=True, answering=2.0, light=True)
"""A Pi 3: five DISCOVERs, five seconds apart."""
BOOTCODE = Patience(25.0, 5.0, final=True)
"""bootcode.bin, by analogy with the ROM: so only those wait here that would fail otherwise."""
EEPROM = Patience(45.0, 4.0, final=False)
"""A Pi 4 or 5: DHCP_TIMEOUT, DHCP_REQ_TIMEOUT."""


@dataclass
class Asking:
    """A boot loader that waits for its offer."""

    patience: Patience
    registered: bool
    xid: int
    first: float
    """When it was heard first, in this or an earlier try."""
    since: float
    """When this try began, at the latest."""
    last: float

    @property
    def ends(self) -> float:
        """When it must be let in."""
        return self.since + self.patience.held

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Who comes first: nodes, as anybody can make up new Pis; of each those that would be dead, by the time that
        they have left; then who waits longest."""
        return not self.registered, not self.patience.final, self.ends if self.patience.final else self.first

    def listens(self, now: float) -> bool:
        """Whether it takes an offer between two DISCOVERs: not between two tries."""
        return now - self.since < self.patience.seconds

    def begins_anew(self, xid: int, now: float) -> bool:
        """Whether a DISCOVER belongs to another try than the one before."""
        pause = xid != self.xid and now - self.last > 2 * self.patience.interval
        return pause or not self.listens(now)


@dataclass(frozen=True)
class Standing:
    """Numbers for people."""

    link: float
    """Bytes a second."""
    files: int
    """Pis that load files."""
    root: int
    """Pis that start from their root."""
    waiting_files: int
    waiting_root: int


@dataclass(eq=False)
class Admission:
    """`link`: bytes a second that it carries. Times are seconds of any clock, the same one in all calls."""

    link: float
    started: float
    """When DHCP began to listen: who was heard soon after that may have asked for long."""
    counters: Counter[str] = field(default_factory=Counter)
    """let_in; held, held_root: had to wait; late: let in although there was no room, as its time ended; gave_up."""
    _files: dict[str, float] = field(default_factory=dict)
    """MACs that load files, and until when each counts."""
    _root: dict[str, float] = field(default_factory=dict)
    """The same of those that start from their root."""
    _asking: dict[str, Asking] = field(default_factory=dict)
    _light: dict[str, float] = field(default_factory=dict)
    """MACs whose ROM may load bootcode.bin, and until when, although it isn't their turn yet."""
    _for_root: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """MACs in their initramfs that wait, first come first, and when each asked last."""

    @property
    def standing(self) -> Standing:
        return Standing(self.link, len(self._files), len(self._root), len(self._asking), len(self._for_root))

    def waits(self, mac: str) -> bool:
        """Whether `mac` is kept waiting for its offer."""
        return mac in self._asking

    def ask(self, mac: str, patience: Patience, xid: int, now: float, registered: bool = False) -> bool:
        """A boot loader, of a `registered` node or of a new Pi, sent a DISCOVER: whether it gets its offer now."""
        self._root.pop(mac, None)
        self._for_root.pop(mac, None)
        if mac in self._files:
            self._files[mac] = max(self._files[mac], now + UNHEARD)
            return True
        if patience.light and mac in self._light:
            return True
        known = self._asking.get(mac)
        if known is None and len(self._asking) >= REMEMBERED:
            return True
        one = self._noted(known, patience, xid, now, registered)
        if self._room() >= FILES_SHARE and not self._others_first(mac, registered):
            self._let_in(mac, now)
            return True
        self.counters["held"] += known is None
        self._asking[mac] = one
        return self._overdue(mac, one, now)

    def _others_first(self, mac: str, registered: bool) -> bool:
        """Whether others wait that `mac` may not overtake."""
        return any(other != mac and one.registered >= registered for other, one in self._asking.items())

    def _noted(self, known: Asking | None, patience: Patience, xid: int, now: float, registered: bool) -> Asking:
        """What is known of a boot loader after this DISCOVER."""
        if known and not known.begins_anew(xid, now):
            known.last, known.registered = now, registered
            return known
        listened = now - self.started  # it may have asked while nobody did
        since = now - patience.seconds if listened < patience.interval + 1 else now
        return Asking(patience, registered, xid, known.first if known else now, since, now)

    def _overdue(self, mac: str, one: Asking, now: float) -> bool:
        """Let in a Pi whose time ends, unless that would only make transfers miss their time limit."""
        crowded = len(self._files) >= max(CROWDED * self.link / FILES_SHARE, AT_LEAST)
        if now < one.ends or (crowded and not one.patience.final):
            return False
        self.counters["late"] += 1
        if crowded and one.patience.light:
            self._light[mac] = now + UNHEARD
            self._asking.pop(mac, None)
        else:
            self._let_in(mac, now)
        return True

    def _let_in(self, mac: str, now: float) -> None:
        self._asking.pop(mac, None)
        self._files[mac] = now + UNHEARD
        self.counters["let_in"] += 1

    def turn(self, now: float) -> tuple[list[str], list[str]]:
        """Call it a few times a second: MACs whose offer is to be sent now, and MACs that have given up."""
        for inside in (self._files, self._root, self._light):
            for mac in [mac for mac, until in inside.items() if until < now]:
                del inside[mac]
        for mac in [mac for mac, last in self._for_root.items() if now - last > ROOT_GONE]:
            del self._for_root[mac]
        gone = [mac for mac, one in self._asking.items() if now - one.last > GONE]
        for mac in gone:
            del self._asking[mac]
        self.counters["gave_up"] += len(gone)
        return self._called(now), gone

    def _called(self, now: float) -> list[str]:
        called = []
        for mac, one in sorted(self._asking.items(), key=lambda item: item[1].rank):
            if not one.listens(now):
                continue
            if self._room() >= FILES_SHARE:
                self._let_in(mac, now)
                called.append(mac)
            elif self._overdue(mac, one, now):
                called.append(mac)
        return called

    def root(self, mac: str, now: float) -> bool:
        """A Pi in its initramfs asks whether it may start from its root."""
        self._files.pop(mac, None)
        if mac not in self._root:
            new = mac not in self._for_root
            self._for_root[mac] = now
            if mac not in islice(self._for_root, self._root_places()):
                self.counters["held_root"] += new
                return False
            del self._for_root[mac]
        self._root[mac] = now + SILENT_ROOT
        return True

    def _room(self) -> float:
        """Bytes a second that nobody is counted for, for boot loaders."""
        if len(self._files) + len(self._root) < AT_LEAST:
            return FILES_SHARE
        return self._free()

    def _free(self) -> float:
        return self.link - len(self._files) * FILES_SHARE - len(self._root) * ROOT_SHARE

    def _root_places(self) -> int:
        """How many more may start from their root."""
        room = self._free()
        if self._asking:
            room = min(room, ROOT_LEAST * self.link - len(self._root) * ROOT_SHARE)
        return max(int(room / ROOT_SHARE), AT_LEAST - len(self._files) - len(self._root), 0)

    def reached(self, mac: str, stage: Stage, now: float) -> None:
        """A Pi reached a stage: seen by TFTP, or as it says itself. One that was let in before a restart counts too."""
        if stage is Stage.FIRMWARE:
            self._asking.pop(mac, None)
            self._files[mac] = now + SILENT_FILES
        elif stage in LOADED:
            self._files.pop(mac, None)
        elif stage in ROOTED:
            self._files.pop(mac, None)
            self._root[mac] = now + SILENT_ROOT
        elif stage in (Stage.READY, Stage.FAILED):
            self._root.pop(mac, None)
