"""How far each boot of each Pi came, and when: one file of JSON lines a MAC."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kestrelpi.files import Later, append, write_whole
from kestrelpi.nodes.boot import FOR_OFFER, FOR_ROOT, NOTES, PAUSE, Boot, Kind, Note, Stage

__all__ = [
    "FOR_OFFER",
    "FOR_ROOT",
    "KEPT",
    "NOTES",
    "PAUSE",
    "Boot",
    "BootLog",
    "Kind",
    "Note",
    "Stage",
    "file_of",
    "read",
    "summary",
]

log = logging.getLogger("kestrelpi")

KEPT = 10
"""Boots kept of each MAC."""
DETAIL = 300
"""Characters of a detail that are kept: it comes from the network."""
FAILURES = 20
"""Failures kept of one boot."""
USUAL = 3000
"""Bytes that a boot takes in the file as a rule."""
MOST = 16384
"""Files, and boots in memory, that there are at most: anybody can make up MACs."""
BARE = 400
"""Bytes of a file that has no more than a DHCP exchange."""


@lru_cache(4096)
def file_of(folder: Path, mac: str) -> Path:
    """The file with the boots of `mac`."""
    return folder / _name(mac)


def _name(mac: str) -> str:
    return f"{mac.replace(':', '-')}.jsonl"


def _mac_of(file: Path) -> str:
    return file.stem.replace("-", ":")


def read(folder: Path, mac: str, most: int = KEPT) -> list[Boot]:
    """The last `most` boots of `mac`, oldest first. A line cut off by a crash is passed over."""
    boots: dict[int, Boot] = {}
    path = f"{folder}/{_name(mac)}"  # to make 10,000 Paths is a tenth of `nodes list`
    for number, what, at, detail in reversed(_last_records(path, most)):
        boot = boots.get(number)
        if boot is None:
            boot = boots[number] = Boot(at, number=number)
        if isinstance(what, Kind):
            boot.note(what, at, detail)
        else:
            boot.add(what, at, detail)
    return list(boots.values())


STAGES: Mapping[str, Stage] = {one.value: one for one in Stage}
KINDS: Mapping[str, Kind] = {one.value: one for one in Kind}
Record = tuple[int, Stage | Kind, float, str]


def _last_records(path: str, most: int) -> list[Record]:
    """The records of the last `most` boots, the last first. Older ones are not read: there may be 10,000 nodes."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        size = os.fstat(file).st_size
        begin = max(0, size - most * USUAL)
        while True:
            lines = os.pread(file, size - begin, begin).decode("utf-8", "replace").splitlines()
            records, whole = _newest(lines[1:] if begin else lines, most)
            if whole or not begin:
                return records
            begin = 0
    finally:
        os.close(file)


def _newest(lines: list[str], most: int) -> tuple[list[Record], bool]:
    """The records of the last `most` boots, the last first, and whether one of an older boot was seen."""
    wanted: list[str] = []
    boots: set[str] = set()
    for line in reversed(lines):
        boot, comma, _ = line.partition(",")
        if boot not in boots:
            if not comma or not boot.startswith('{"boot": '):
                continue
            if len(boots) == most:
                return _records(wanted), True
            boots.add(boot)
        wanted.append(line)
    return _records(wanted), False


def _records(lines: list[str]) -> list[Record]:
    """The records in `lines`, less those that are none."""
    try:
        found = json.loads(f"[{','.join(lines)}]")  # all in one call: a few times as fast as each by itself
    except ValueError:
        found = [_decoded(line) for line in lines]
    return [record for record in map(_record, found) if record]


def _decoded(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _record(one: Any) -> Record | None:
    try:
        what = KINDS[one["note"]] if "note" in one else STAGES[one["stage"]]
        return int(one["boot"]), what, float(one["at"]), str(one.get("detail", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _line(boot: Boot, what: Stage | Kind, at: float, detail: str) -> str:
    key = "note" if isinstance(what, Kind) else "stage"
    record: dict[str, object] = {"boot": boot.number, key: what.value, "at": round(at, 3)}
    return json.dumps({**record, "detail": detail} if detail else record) + "\n"


class BootLog:
    """The daemon's side: appends a line when a stage is reached for the first time in a boot.

    The DHCP server records the messages of a boot loader only (options 60 or 97): the DISCOVER of the initramfs and of
    the running system belongs to the same boot.
    """

    def __init__(
        self,
        folder: Path,
        told: Callable[[Boot, Stage], None] = lambda boot, stage: None,
        later: Later | None = None,
    ) -> None:
        """`told` hears of each stage that a boot reaches for the first time; `later`: who writes, and not at once."""
        self.folder = folder
        self.told = told
        self._later = later
        self._append = later.append if later else append
        self._current: dict[str, Boot] = {}
        self._written = {_mac_of(path) for path in folder.glob("*.jsonl")}
        """MACs that have a file: nobody else makes one, and to look for each of a room's takes its time."""

    def record(self, mac: str, stage: Stage | str, at: float, detail: str = "") -> None:
        """`mac` reached `stage` at `at` (Unix time). A stage that the boot already has is passed over,
        so that a loop that reports once a second writes one line; a failure with a new detail is kept.

        Raises ValueError when `stage` is none.
        """
        stage = Stage(stage)
        detail = _clean(detail)
        boot = self._boot(mac)
        if boot is None or boot.ended_by(stage, at):
            boot = self._begin(mac, at, self._read(mac, KEPT) if boot else [])
        elif stage in boot.stages and not self._news(boot, stage, detail):
            boot.last = max(boot.last, at)
            if stage is Stage.DISCOVER and boot.current is Stage.OFFER:
                self.note(mac, Kind.AGAIN, at, str(len(boot.of(Kind.AGAIN)) + 1))
            return
        first = stage not in boot.stages
        boot.add(stage, at, detail)
        self._write(mac, boot, stage, at, detail)
        if first:
            self.told(boot, stage)

    def note(self, mac: str, kind: Kind, at: float, detail: str = "") -> None:
        """Something was seen in the boot that `mac` is in; without a boot it is passed over."""
        boot = self._boot(mac)
        detail = _clean(detail)
        if boot is not None and boot.note(kind, at, detail):
            self._write(mac, boot, kind, at, detail)

    def _write(self, mac: str, boot: Boot, what: Stage | Kind, at: float, detail: str) -> None:
        self._written.add(mac)
        with _nevertheless():
            self._append(file_of(self.folder, mac), _line(boot, what, at, detail).encode())

    def current(self, mac: str) -> Boot | None:
        """The boot that `mac` is in, or was in last."""
        return self._boot(mac)

    def _news(self, boot: Boot, stage: Stage, detail: str) -> bool:
        return stage is Stage.FAILED and boot.details.get(stage) != detail and boot.failures < FAILURES

    def _boot(self, mac: str) -> Boot | None:
        if mac not in self._current and mac in self._written:
            boots = self._read(mac, 1)
            if boots:
                self._keep(mac, boots[-1])
        return self._current.get(mac)

    def _read(self, mac: str, most: int) -> list[Boot]:
        if self._later:
            with _nevertheless():
                self._later.settle(file_of(self.folder, mac))
        return read(self.folder, mac, most)

    def _keep(self, mac: str, boot: Boot) -> Boot:
        self._current.pop(mac, None)
        self._current[mac] = boot
        if len(self._current) > MOST:
            del self._current[next(iter(self._current))]  # it is read from its file, should it still go on
        return boot

    def _make_room(self) -> None:
        """Before another file is made: when there are too many, remove half of those that tell least, the oldest."""
        if len(self._written) < MOST:
            return
        known = [(path, path.stat()) for path in self.folder.glob("*.jsonl")]
        bare = [one for one in known if one[1].st_size <= BARE] or known
        gone = sorted(bare, key=lambda one: one[1].st_mtime)[: len(bare) // 2 + 1]
        for path, _ in gone:
            path.unlink()
        self._written = {_mac_of(path) for path, _ in known} - {_mac_of(path) for path, _ in gone}

    def _begin(self, mac: str, at: float, before: list[Boot]) -> Boot:
        """A new boot; the file keeps the boots before it that came further than a DISCOVER."""
        keep = [boot for boot in before if set(boot.stages) != {Stage.DISCOVER}][-(KEPT - 1) :]
        with _nevertheless():
            if len(keep) < len(before):
                write_whole(file_of(self.folder, mac), "".join(_lines(keep)))
            if not before:
                self._make_room()
        number = before[-1].number + 1 if before else 1
        return self._keep(mac, Boot(round(at, 3), last=at, number=number))


@contextmanager
def _nevertheless() -> Iterator[None]:
    """Go on when the disk is full or broken: Pis must be able to boot, and what they reach is still in memory."""
    try:
        yield
    except OSError as error:
        log.error("what the Pis reach at boot can't be written: %s", error)


def _lines(boots: list[Boot]) -> Iterator[str]:
    """A stage first: it says when the boot began."""
    for boot in boots:
        for stage, seconds in boot.stages.items():
            yield _line(boot, stage, boot.started + seconds, boot.details.get(stage, ""))
        for note in boot.notes:
            yield _line(boot, note.kind, boot.started + note.at, note.detail)


def _clean(detail: str) -> str:
    short = detail[:DETAIL]
    return short if short.isprintable() else "".join(one if one.isprintable() else " " for one in short)


def summary(boot: Boot) -> Mapping[str, float]:
    """Stage names to seconds, for JSON."""
    return {stage.value: seconds for stage, seconds in boot.stages.items()}
