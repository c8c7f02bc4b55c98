"""What TFTP tells becomes stages and notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.nodes.boots import Boot, BootLog, Kind, Stage
from kestrelpi.services.observer import Observer, without_prefix
from kestrelpi.services.tftp.source import TransferEvent
from kestrelpi.services.turns import CARRIED, Turns
from kestrelpi.services.wire_facts import WireFacts

MAC = "dc:a6:32:00:00:01"
ADDRESS = "10.77.0.140"


class Bench:
    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.armed: list[str] = []
        self.boots = BootLog(folder / "boots")
        facts = WireFacts(folder / "wire.json")
        self.observer = Observer(self.boots, facts, self.armed.append, {ADDRESS: MAC}.get, lambda: self.now)

    def tell(self, *events: TransferEvent) -> Boot:
        for event in events:
            self.observer.transfer(event)
        boot = self.boots.current(MAC)
        assert boot
        return boot


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.observer.stage(MAC, Stage.DISCOVER, "")
    return made


def test_from_the_first_file_to_the_kernel(bench: Bench) -> None:
    boot = bench.tell(
        TransferEvent("start", "91cdf03d/start4.elf", ADDRESS, detail="blksize 1468"),
        TransferEvent("aborted", "91cdf03d/start4.elf", ADDRESS, detail="0 Early terminate"),
        TransferEvent("missing", "91cdf03d/recovery.elf", ADDRESS),
        TransferEvent("start", "91cdf03d//cmdline.txt", ADDRESS, detail="blksize 1024"),
    )
    assert (boot.current, bench.armed) == (Stage.FIRMWARE, [])
    assert [(note.kind, note.detail) for note in boot.notes] == [
        (Kind.FILE, "start4.elf"),
        (Kind.FILE, "cmdline.txt"),
    ]
    boot = bench.tell(
        TransferEvent("done", "91cdf03d//cmdline.txt", ADDRESS), TransferEvent("done", "91cdf03d/vmlinuz", ADDRESS)
    )
    assert (boot.current, bench.armed) == (Stage.KERNEL, [MAC])


def test_an_old_eeprom_is_told_by_its_first_file(bench: Bench) -> None:
    boot = bench.tell(TransferEvent("start", "start4.elf", ADDRESS, detail="blksize 1024"))
    assert boot.of(Kind.OLD_EEPROM) == ["blksize 1024, as before 2022-10"]


def test_what_is_missing_and_what_broke_off(bench: Bench) -> None:
    boot = bench.tell(
        TransferEvent("missing", "dc-a6-32-00-00-01/start4.elf", ADDRESS),
        TransferEvent("timeout", "vmlinuz", ADDRESS, bytes=3_400_000),
    )
    assert boot.of(Kind.MISSING) == ["start4.elf"]
    assert boot.of(Kind.BROKEN) == ["vmlinuz (3.4 MB of it were sent)"]


def test_a_pi_that_is_first_heard_by_tftp(tmp_path: Path) -> None:
    boot = Bench(tmp_path).tell(TransferEvent("missing", "start4.elf", ADDRESS))
    assert (boot.current, boot.of(Kind.MISSING)) == (Stage.FIRMWARE, ["start4.elf"])


def test_who_is_not_on_our_wire_has_no_timeline(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.observer.transfer(TransferEvent("start", "start4.elf", "127.0.0.1"))
    assert not (tmp_path / "boots").exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("91cdf03d/config.txt", "config.txt"),
        ("/91cdf03d//config.txt", "config.txt"),
        ("config.txt", "config.txt"),
        ("DC-A6-32-00-00-01/overlays/x.dtbo", "overlays/x.dtbo"),
        ("91cdf03d", "91cdf03d"),
    ],
)
def test_names_without_what_stands_before_them(path: str, name: str) -> None:
    assert without_prefix(path) == name


def test_what_it_tells_of_whose_turn_it_is(bench: Bench) -> None:
    turns = bench.observer.turns = Turns(lambda: 1000 * CARRIED, lambda: bench.now)
    for name, loading in (("bootcode.bin", 0), ("91cdf03d/start.elf", 1), ("91cdf03d/config.txt", 1)):
        bench.tell(TransferEvent("start", name, ADDRESS), TransferEvent("done", name, ADDRESS))
        assert turns.standing.files == loading, name
    bench.tell(
        TransferEvent("start", "91cdf03d/vmlinuz", ADDRESS), TransferEvent("aborted", "91cdf03d/vmlinuz", ADDRESS)
    )
    assert turns.standing.files == 1, "it only asked how large it is"
    bench.tell(TransferEvent("done", "91cdf03d/vmlinuz", ADDRESS))
    assert turns.standing.files == 0
