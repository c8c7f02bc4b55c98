"""The boot timeline: what begins a boot, what is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kestrelpi.files import Later
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import KEPT, NOTES, BootLog, Kind, Stage, file_of, read

MAC = "dc:a6:32:00:00:01"


def whole_boot(log: BootLog, at: float) -> None:
    for seconds, stage in enumerate(one for one in Stage if one not in (Stage.WAITING, Stage.FAILED)):
        log.record(MAC, stage, at + seconds)


def test_a_boot_from_discover_to_ready(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    whole_boot(log, 1000)
    (boot,) = read(tmp_path, MAC)
    assert boot.started == 1000
    assert boot.stages[Stage.DISCOVER] == 0
    assert boot.stages[Stage.READY] == 10
    assert boot.current is Stage.READY
    assert file_of(tmp_path, MAC).name == "dc-a6-32-00-00-01.jsonl"


def test_a_full_disk_stops_no_boot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reached: list[Stage] = []
    log = BootLog(tmp_path, lambda boot, stage: reached.append(stage))
    file_of(tmp_path, MAC).symlink_to("/dev/full")
    whole_boot(log, 1000)
    boot = log.current(MAC)
    assert boot is not None and boot.current is Stage.READY
    assert reached[-1] is Stage.READY
    assert "can't be written: [Errno 28] No space left" in caplog.text


def test_what_is_written_later_is_the_same(tmp_path: Path) -> None:
    """The second boot has to see the first one's lines, which nobody has written yet."""
    later = Later()
    logs = BootLog(tmp_path / "now"), BootLog(tmp_path / "later", later=later)
    for log in logs:
        for begun in (1000, 2000, 3000):
            log.record(MAC, "discover", begun)
            if begun == 2000:
                log.record(MAC, "kernel", begun + 5)
    write = later.due()
    assert write is not None
    write()
    assert later.due() is None
    now, then = (file_of(log.folder, MAC).read_text() for log in logs)
    assert then == now
    assert [boot.number for boot in read(tmp_path / "later", MAC)] == [2, 3]


def test_a_second_discover_of_the_boot_loader_belongs_to_the_same_boot(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    log.record(MAC, "discover", 1000)
    log.record(MAC, "offer", 1000.1)
    log.record(MAC, "firmware", 1001)
    log.record(MAC, "discover", 1004)  # bootcode.bin asks again
    log.record(MAC, "kernel", 1006)
    assert [boot.stages for boot in read(tmp_path, MAC)] == [
        {Stage.DISCOVER: 0, Stage.OFFER: 0.1, Stage.FIRMWARE: 1, Stage.KERNEL: 6}
    ]


def test_what_begins_a_new_boot(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    log.record(MAC, "discover", 1000)
    log.record(MAC, "kernel", 1002)
    log.record(MAC, "discover", 1004)  # the kernel never came up: the Pi was switched off and on
    log.record(MAC, "offer", 1004.5)
    log.record(MAC, "discover", 1020)  # silence in between
    log.record(MAC, "root", 1030)
    log.record(MAC, "firmware", 1031)  # another DHCP server hid the DISCOVER
    assert [boot.started for boot in read(tmp_path, MAC)] == [1000, 1004, 1020, 1031]


def test_stage_without_a_boot_begins_one(tmp_path: Path) -> None:
    BootLog(tmp_path).record(MAC, "ready", 1000)
    assert [(boot.started, boot.current) for boot in read(tmp_path, MAC)] == [(1000, Stage.READY)]


def test_a_restarted_daemon_goes_on_with_the_boot(tmp_path: Path) -> None:
    BootLog(tmp_path).record(MAC, "discover", 1000)
    BootLog(tmp_path).record(MAC, "kernel", 1005)
    assert [boot.stages for boot in read(tmp_path, MAC)] == [{Stage.DISCOVER: 0, Stage.KERNEL: 5}]


def test_waiting_writes_one_line(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    for second in range(100):
        log.record(MAC, "waiting", 1000 + second)
    assert len(file_of(tmp_path, MAC).read_text().splitlines()) == 1
    current = log.current(MAC)
    assert current is not None
    assert current.last == 1099


def test_failures_keep_their_detail(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    log.record(MAC, "kernel", 1000)
    log.record(MAC, "failed", 1001, "NFS mount: \x1b[31mno route\n")
    log.record(MAC, "failed", 1002, "NFS mount: \x1b[31mno route\n")
    log.record(MAC, "failed", 1003, "other")
    log.record(MAC, "root", 1004)
    (boot,) = read(tmp_path, MAC)
    assert boot.details == {Stage.FAILED: "other"}
    assert boot.stages == {Stage.KERNEL: 0, Stage.FAILED: 3, Stage.ROOT: 4}
    assert boot.current is Stage.ROOT, "it went on after all"
    lines = file_of(tmp_path, MAC).read_text().splitlines()
    assert len(lines) == 4
    assert "\\u001b" not in lines[1], "control characters don't reach a terminal"


def test_a_loop_of_failures_is_bounded(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    for number in range(1000):
        log.record(MAC, "failed", 1000 + number, f"{number} " + "x" * 1000)
    assert file_of(tmp_path, MAC).stat().st_size < boots.FAILURES * (boots.DETAIL + 100)


def test_the_last_ten_boots_are_kept(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    for number in range(15):
        whole_boot(log, 1000 + 100 * number)
    found = read(tmp_path, MAC)
    assert [boot.started for boot in found] == [1000 + 100 * number for number in range(5, 15)]
    assert all(boot.stages[Stage.READY] == 10 for boot in found)
    assert len(file_of(tmp_path, MAC).read_text().splitlines()) == 10 * 11


def test_a_pi_that_nobody_answers_does_not_push_out_its_boots(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    whole_boot(log, 1000)
    for number in range(50):
        log.record(MAC, "discover", 2000 + 20 * number)
    assert [boot.started for boot in read(tmp_path, MAC)] == [1000, 2980]


def test_clock_set_back(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    whole_boot(log, 5000)
    whole_boot(log, 1000)
    first, second = read(tmp_path, MAC)
    assert (first.started, second.started) == (5000, 1000)
    assert first.stages == second.stages
    assert second.stages[Stage.READY] == 10


def test_broken_lines_are_passed_over(tmp_path: Path) -> None:
    BootLog(tmp_path).record(MAC, "discover", 1000)
    with file_of(tmp_path, MAC).open("a") as file:
        file.write('{"boot": 1000, "stage": "nonsense", "at": 1}\n[]\n{"boot": 1000, "sta')
    assert [boot.stages for boot in read(tmp_path, MAC)] == [{Stage.DISCOVER: 0}]
    assert read(tmp_path, "00:00:00:00:00:00") == []


def test_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nonsense' is not a valid Stage"):
        BootLog(tmp_path).record(MAC, "nonsense", 1000)


def test_notes_are_kept_once_and_bounded(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    log.note(MAC, Kind.MISSING, 999, "nothing began")
    log.record(MAC, "discover", 1000)
    for number in range(200):
        log.note(MAC, Kind.MISSING, 1001, f"file{number}\n")
        log.note(MAC, Kind.MISSING, 1002, f"file{number}\n")
    (boot,) = read(tmp_path, MAC)
    assert [note.detail for note in boot.notes] == [f"file{number} " for number in range(NOTES)]
    assert (boot.notes[0].kind, boot.notes[0].at, boot.last) == (Kind.MISSING, 1.0, 1001)


def test_notes_survive_the_next_boots(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    for number in range(KEPT + 3):
        log.record(MAC, "discover", 1000 + 100 * number)
        log.record(MAC, "firmware", 1001 + 100 * number)
        log.note(MAC, Kind.FILE, 1002 + 100 * number, str(number))
    kept = read(tmp_path, MAC)
    assert [boot.of(Kind.FILE) for boot in kept] == [[str(number)] for number in range(3, KEPT + 3)]
    assert [boot.number for boot in read(tmp_path, MAC, 2)] == [KEPT + 2, KEPT + 3]


def test_a_discover_after_our_offer_is_noted(tmp_path: Path) -> None:
    log = BootLog(tmp_path)
    for second in range(0, 12, 4):
        log.record(MAC, "discover", 1000 + second)
        log.record(MAC, "offer", 1000.1 + second)
    log.record(MAC, "firmware", 1013)
    log.record(MAC, "discover", 1014)  # bootcode.bin
    assert read(tmp_path, MAC)[-1].of(Kind.AGAIN) == ["1", "2"]


def test_who_listens_hears_each_stage_once(tmp_path: Path) -> None:
    heard: list[tuple[int, Stage]] = []
    log = BootLog(tmp_path, lambda boot, stage: heard.append((boot.number, stage)))
    for at in (1000, 1001, 1030):
        log.record(MAC, "discover", at)
        log.record(MAC, "offer", at, str(at))
    assert heard == [(1, Stage.DISCOVER), (1, Stage.OFFER), (2, Stage.DISCOVER), (2, Stage.OFFER)]


@pytest.mark.parametrize("notes", [0, 5, 40])
def test_only_the_last_boots_are_read_and_those_whole(tmp_path: Path, notes: int) -> None:
    log = BootLog(tmp_path)
    for number in range(4):
        log.record(MAC, "discover", 1000 + 100 * number)
        log.record(MAC, "firmware", 1001 + 100 * number)
        for note in range(notes):
            log.note(MAC, Kind.MISSING, 1002 + 100 * number, f"{number} {note} {'x' * 100}")
    everything = read(tmp_path, MAC)
    for most in (1, 2, 4, 9):
        assert read(tmp_path, MAC, most) == everything[-most:]


def test_a_flood_of_macs_fills_neither_memory_nor_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boots, "MOST", 50)
    log = BootLog(tmp_path)
    whole_boot(log, 1000)
    for number in range(500):
        mac = f"dc:a6:32:ff:{number >> 8:02x}:{number & 255:02x}"
        log.record(mac, Stage.DISCOVER, 2000 + number)
        log.record(mac, Stage.OFFER, 2000 + number, "10.77.0.200")
        assert len(list(tmp_path.iterdir())) <= 51 and len(log._current) <= 50
    assert read(tmp_path, MAC)[-1].current is Stage.READY, "a boot that came far is not pushed out by made-up ones"
    assert read(tmp_path, mac)[-1].current is Stage.OFFER
    log.record(MAC, Stage.SERVICES, 1011)
    assert len(read(tmp_path, MAC)) == 1, "one that left the memory goes on in its file"


def test_a_mac_that_has_no_file_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_boot(BootLog(tmp_path), 1000)
    log = BootLog(tmp_path)
    looked: list[str] = []
    new = "dc:a6:32:00:00:02"
    opened = os.open

    def look(path: str, *rest: int) -> int:
        looked.append(Path(path).name)
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", look)
    log.note(new, Kind.MISSING, 2000, "start4.elf")
    assert log.current(new) is None and looked == []
    assert log.current(MAC) is not None and looked == [file_of(tmp_path, MAC).name]
