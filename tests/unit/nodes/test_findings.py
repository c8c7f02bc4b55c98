"""Each finding from a made-up timeline, and the timelines beside it that must not have it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.finding import Severity, worst, worst_first
from kestrelpi.nodes.boots import FOR_OFFER, FOR_ROOT, BootLog, Kind, Stage, read
from kestrelpi.nodes.failures import KNOWN, explain
from kestrelpi.nodes.findings import diagnose, same_serial
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.rules_loader import mandatory
from kestrelpi.nodes.seen import Seen
from kestrelpi.nodes.sightings import Sighting
from kestrelpi.nodes.silence import BUDGET, MEANS

MAC = "dc:a6:32:00:00:01"
LOADER = (Stage.DISCOVER, Stage.OFFER, Stage.REQUEST, Stage.FIRMWARE, Stage.KERNEL)
SYSTEM = (Stage.INITRAMFS, Stage.TIME, Stage.ROOT, Stage.OVERLAY, Stage.SERVICES)
FILES = ("start4.elf", "fixup4.dat", "config.txt", "cmdline.txt", "bcm2711-rpi-4-b.dtb", "vmlinuz", "initramfs.img")


class Pi:
    """A boot log of one Pi, as the daemon would write it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = BootLog(folder)
        self.at = 1000.0

    def reach(self, *stages: Stage, detail: str = "") -> Pi:
        for stage in stages:
            self.log.record(MAC, stage, self.at, detail)
            self.at += 1
        return self

    def note(self, kind: Kind, *details: str) -> Pi:
        for detail in details:
            self.log.note(MAC, kind, self.at, detail)
        return self

    def pause(self, seconds: float) -> Pi:
        self.at += seconds
        return self

    def names(self, after: float = 6.0, model: str = "4B") -> list[str]:
        return [one.name for one in diagnose(self.seen(after, model))]

    def seen(self, after: float = 6.0, model: str = "4B") -> Seen:
        boots = read(self.folder, MAC)
        return Seen("rpi1", boots, model, boots[-1].last + after if boots else after)


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def test_never_seen_and_well(pi: Pi) -> None:
    assert pi.names() == []
    pi.reach(*LOADER).note(Kind.FILE, *FILES).note(Kind.MISSING, "start.elf", "kernel8.img").reach(*SYSTEM, Stage.READY)
    assert pi.names(after=86400) == []


def test_a_missing_file(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.FILE, "config.txt").note(Kind.MISSING, "start4.elf", "start.elf")
    assert pi.names() == ["missing-file"]
    assert pi.names(after=1) == [], "it may still ask under another name"
    assert pi.names(after=3600) == ["missing-file"], "that it is silent then is no news"
    (finding,) = diagnose(pi.seen())
    assert "start4.elf" in finding.what
    assert finding.severity is Severity.ERROR


def test_a_file_that_was_found_under_another_name_is_not_missing(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.MISSING, "start4.elf", "vmlinuz").note(Kind.FILE, "start.elf", "kernel8.img")
    assert pi.names() == []


@pytest.mark.parametrize(
    ("got", "cause"),
    [((), "no files at all"), (("config.txt", "start4.elf"), "lacks it")],
)
def test_why_a_file_is_missing(pi: Pi, got: tuple[str, ...], cause: str) -> None:
    pi.reach(*LOADER[:4]).note(Kind.FILE, *got).note(Kind.MISSING, "vmlinuz")
    assert cause in diagnose(pi.seen())[0].cause


def test_a_default_kernel_tells_that_config_txt_was_not_read(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.FILE, "start4.elf").note(Kind.MISSING, "kernel8.img")
    assert "config.txt" in diagnose(pi.seen())[0].cause


@pytest.mark.parametrize(
    "name",
    ["recovery.elf", "pieeprom.sig", "dt-blob.bin", "bootcfg.txt", "overlays/disable-bt.dtbo", "armstub8-gic.bin"],
)
def test_what_a_pi_asks_for_in_vain_as_a_rule_is_no_finding(pi: Pi, name: str) -> None:
    assert mandatory(name) == ""


@pytest.mark.parametrize("name", [*FILES, "bootcode.bin", "start.elf", "start4cd.elf", "bcm2837-rpi-3-b-plus.dtb"])
def test_mandatory_files(name: str) -> None:
    assert mandatory(name)


def test_a_pi_that_waits_for_its_turn_is_no_finding_until_it_gives_up(pi: Pi) -> None:
    pi.reach(Stage.DISCOVER).note(Kind.HELD, FOR_OFFER)
    assert pi.names(after=600) == []
    pi.note(Kind.GAVE_UP, "")
    assert pi.names(after=600) == ["gave-up"]


def test_a_pi_that_waits_for_its_root_is_not_silent(pi: Pi) -> None:
    pi.reach(*LOADER, Stage.INITRAMFS, Stage.TIME).note(Kind.HELD, FOR_ROOT)
    assert pi.names(after=BUDGET[Stage.TIME] * 5) == []
    pi.reach(Stage.ROOT)
    assert pi.names(after=BUDGET[Stage.ROOT]) == ["fell-silent"]


@pytest.mark.parametrize("stage", list(BUDGET))
def test_silence_after_each_stage(pi: Pi, stage: Stage) -> None:
    order = [*LOADER, *SYSTEM]
    pi.reach(*order[: order.index(stage) + 1])
    assert pi.names(after=BUDGET[stage] - 1) == []
    assert pi.names(after=BUDGET[stage]) == ["fell-silent"]
    assert stage.value in diagnose(pi.seen(after=BUDGET[stage]))[0].what
    assert stage in MEANS


def test_silence_in_the_middle_of_a_file(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.BROKEN, "vmlinuz (3 MB)")
    (finding,) = diagnose(pi.seen(after=600))
    assert (finding.name, "vmlinuz" in finding.what, "power" in finding.cause) == ("fell-silent", True, True)


def test_a_boot_loop(pi: Pi) -> None:
    for _ in range(2):
        pi.reach(*LOADER).pause(40)
    assert "boot-loop" not in pi.names()
    pi.reach(*LOADER)
    assert pi.names() == ["boot-loop"]
    assert "kernel" in diagnose(pi.seen())[0].what
    pi.reach(*SYSTEM, Stage.READY)
    assert pi.names() == [], "it got through"


def test_boots_over_a_day_are_no_loop(pi: Pi) -> None:
    for _ in range(4):
        pi.reach(*LOADER).pause(3600)
    pi.reach(*LOADER)
    assert pi.names() == []


@pytest.mark.parametrize("spacing", [4.0, 16.0])
def test_an_offer_that_is_ignored(pi: Pi, spacing: float) -> None:
    """Four seconds apart it is one boot; after 16 s of silence each DISCOVER begins one."""
    pi.reach(Stage.DISCOVER, Stage.OFFER).pause(spacing)
    pi.reach(Stage.DISCOVER, Stage.OFFER).pause(spacing)
    assert pi.names() == [], "one packet may be lost"
    pi.reach(Stage.DISCOVER, Stage.OFFER).pause(spacing)
    pi.reach(Stage.DISCOVER, Stage.OFFER)
    assert pi.names() == ["offer-ignored"]
    pi.reach(Stage.REQUEST, Stage.FIRMWARE)
    assert pi.names() == []


def test_who_else_answers_explains_an_ignored_offer(pi: Pi) -> None:
    for _ in range(4):
        pi.reach(Stage.DISCOVER, Stage.OFFER).pause(3)
    pi.note(Kind.FOREIGN, "taken 192.168.1.1")
    found = diagnose(pi.seen())
    assert [one.name for one in found] == ["offer-ignored", "foreign-dhcp"]
    assert "192.168.1.1" in found[0].cause


def test_the_rom_of_a_3b_ignores_offers_for_reasons_of_its_own(pi: Pi) -> None:
    for _ in range(4):
        pi.reach(Stage.DISCOVER, Stage.OFFER).pause(3)
    assert "rom_delay" in diagnose(pi.seen(model="3B"))[0].fix
    assert "rom_delay" not in diagnose(pi.seen(model="3B+"))[0].fix


@pytest.mark.parametrize(
    ("detail", "name", "severity"),
    [
        ("dhcp 10.77.0.2", "foreign-dhcp", Severity.WARNING),
        ("proxy 10.77.0.2", "foreign-proxy", Severity.WARNING),
        ("taken 10.77.0.2", "foreign-dhcp", Severity.ERROR),
    ],
)
def test_another_server(pi: Pi, detail: str, name: str, severity: Severity) -> None:
    pi.reach(Stage.DISCOVER, Stage.OFFER).note(Kind.FOREIGN, detail).reach(Stage.REQUEST, Stage.FIRMWARE)
    (finding,) = diagnose(pi.seen())
    assert (finding.name, finding.severity) == (name, severity)
    assert "10.77.0.2" in finding.what


def test_nobody_answered_or_no_address_was_left(pi: Pi) -> None:
    pi.reach(Stage.DISCOVER)
    assert pi.names(after=1) == []
    assert pi.names() == ["no-offer"]
    pi.note(Kind.NO_ADDRESS, "")
    assert pi.names() == ["pool-full"]


@pytest.mark.parametrize(
    ("detail", "names"),
    [
        ("link 3.1 s, address 33.9 s", ["stp-gap"]),
        ("link 3.1 s, address 5.0 s", []),
        ("", []),
        ("link .. s, address 9 s", []),
    ],
)
def test_a_switch_that_holds_the_port_back(pi: Pi, detail: str, names: list[str]) -> None:
    pi.reach(*LOADER).reach(Stage.INITRAMFS, detail=detail).reach(*SYSTEM[1:], Stage.READY)
    assert pi.names() == names


def test_an_old_eeprom(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.OLD_EEPROM, "blksize 1024", "option 97 has only the serial")
    (finding,) = diagnose(pi.seen())
    assert (finding.name, finding.severity) == ("old-eeprom", Severity.WARNING)
    assert "blksize 1024, option 97 has only the serial" in finding.what


def test_two_boards_with_one_mac(pi: Pi) -> None:
    pi.reach(*LOADER[:3]).note(Kind.SAME_MAC, "serials 0a0b0c0d and 01020304")
    assert pi.names() == ["same-mac"]


def test_two_boards_with_one_serial() -> None:
    known = {
        "a": Sighting("a", serial="0a0b0c0d", first=100, last=900),
        "b": Sighting("b", serial="0a0b0c0d", first=500, last=600),
        "c": Sighting("c", serial="11111111", first=500, last=600),
        "d": Sighting("d", serial="", first=500, last=600),
        "e": Sighting("e", serial="", first=500, last=600),
    }
    node = Node("rpi1", "a", "rpi", IPv4Address("10.77.0.11"))
    found = same_serial(known, {"a": node})
    assert [(one.name, one.node) for one in found] == [("same-serial", "rpi1"), ("same-serial", "b")]


def test_one_board_that_got_another_mac() -> None:
    known = {
        "a": Sighting("a", serial="0a0b0c0d", first=100, last=400),
        "b": Sighting("b", serial="0a0b0c0d", first=500, last=600),
    }
    assert same_serial(known, {}) == []


def test_low_voltage_and_failed_units(pi: Pi) -> None:
    pi.reach(*LOADER, *SYSTEM).reach(Stage.READY, detail="failed units: munge.service slurmd.service ; low voltage")
    found = {one.name: one for one in diagnose(pi.seen())}
    assert set(found) == {"failed-units", "low-voltage"}
    assert found["failed-units"].fix.endswith("-u munge.service")
    assert {one.severity for one in found.values()} == {Severity.WARNING}


def test_a_failure_in_the_initramfs(pi: Pi) -> None:
    pi.reach(*LOADER, Stage.INITRAMFS)
    pi.reach(Stage.FAILED, detail="while mounting the root: mount -t nfs4 -o ro x: Connection refused")
    (finding,) = diagnose(pi.seen())
    assert (finding.name, finding.severity) == ("failed-initramfs", Severity.ERROR)
    assert "NFS" in finding.cause


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("no time from http://10.77.0.1:8067 (does kestrelpi serve run? a firewall?)", "services.http.port"),
        ("HTTP/1.0 409 the image default of rpi1 has not been built", "images build"),
        ("mount -t nfs4 -o vers=4.2 10.77.0.1:/x: mounting failed: No such file or directory", "restart it"),
        ("mount -t nfs4 -o x: Permission denied", "network.address"),
        ("HTTP/1.0 403 rpi1 asks from 10.77.0.140, its address is 10.77.0.11", "beside-another-dhcp-server"),
        ("no DHCP answer on eth0 (dc:a6:32:00:00:01)", "portfast"),
        ("no wired network with a link after 180 s", "modules"),
        ("something that nobody foresaw", "kestrelpi.debug"),
    ],
)
def test_failures_and_their_fixes(said: str, fix: str) -> None:
    assert fix in explain(f"while doing this: {said}")[1]


def test_what_the_initramfs_says_is_known() -> None:
    """Each `failed "…"` of the initramfs has an explanation of its own."""
    overlay = Path(__file__).parents[3] / "overlays/initramfs"
    text = (overlay / "init").read_text() + (overlay / "lib/kestrelpi/functions").read_text()
    said = re.findall(r'failed "((?:[^"\\]|\\.)+)"', text)
    unknown = [one for one in said if not any(re.search(pattern, one) for pattern, _, _ in KNOWN)]
    # These pass on what somebody else says: the mount, the frontend.
    assert [
        one for one in unknown if not one.startswith(("while $STEP", "$", "mount", "the script", "the frontend's time"))
    ] == []


def test_waiting_is_a_hint(pi: Pi) -> None:
    pi.reach(*LOADER, Stage.INITRAMFS, Stage.TIME, Stage.WAITING)
    found = diagnose(pi.seen(after=3600))
    assert [(one.name, one.severity) for one in found] == [("not-registered", Severity.HINT)]
    assert worst(found) == 0


def test_the_worst_comes_first(pi: Pi) -> None:
    pi.reach(*LOADER[:4]).note(Kind.OLD_EEPROM, "blksize 1024").note(Kind.MISSING, "start4.elf")
    found = worst_first(diagnose(pi.seen()))
    assert [one.name for one in found] == ["missing-file", "old-eeprom"]
    assert worst(found) == 2
    assert found[0].document()["severity"] == "error"
