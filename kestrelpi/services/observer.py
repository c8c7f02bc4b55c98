"""What the services tell of Pis becomes the boot timeline: stages, and notes on what is odd."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import IPv4Address

from kestrelpi.images.bootdir import KERNEL
from kestrelpi.nodes.boots import BootLog, Kind, Stage
from kestrelpi.nodes.rules_loader import mandatory
from kestrelpi.services.bootfiles import MAC, SERIAL
from kestrelpi.services.tftp.source import TransferEvent
from kestrelpi.services.turns import Turns
from kestrelpi.services.wire_facts import WireFacts

log = logging.getLogger("kestrelpi")

COMMAND_LINE = "cmdline.txt"
OLD_BLKSIZE = "blksize 1024"
"""What an EEPROM before 2022-10 asks for (start4.elf, which comes after it, always does)."""
LIGHT = ("bootcode.bin", "bootsig.bin")
"""What a Pi 3's ROM loads: 52 KB, before it asks for an address again."""
LOUD = ("done", "timeout", "refused")


class Observer:
    """Hears of DHCP and TFTP. `arm`: a boot loader has fetched its command line; `mac_of`: who has an address."""

    def __init__(
        self,
        boots: BootLog,
        facts: WireFacts,
        arm: Callable[[str], None],
        mac_of: Callable[[str], str | None],
        clock: Callable[[], float],
        met: Callable[[str, str], None] = lambda mac, address: None,
        turns: Turns | None = None,
    ) -> None:
        self.boots = boots
        self.facts = facts
        self.arm = arm
        self.mac_of = mac_of
        self.clock = clock
        self.met = met
        """Hears which address a MAC boots with."""
        self.turns = turns
        """Hears that a boot loader loads files that count, and that it has them all."""

    def stage(self, mac: str, stage: Stage, detail: str) -> None:
        """DHCP: a boot loader reached a stage."""
        self.boots.record(mac, stage, self.clock(), detail)

    def note(self, mac: str, kind: Kind, detail: str) -> None:
        """DHCP: something odd about a boot loader."""
        self.boots.note(mac, kind, self.clock(), detail)

    def foreign(self, server: IPv4Address, proxy: bool) -> None:
        """DHCP: another server speaks on this network."""
        self.facts.server(str(server), proxy, self.clock())

    def bridge(self, mac: str, protocol: str) -> None:
        """A switch speaks spanning tree."""
        self.facts.bridge(mac, protocol, self.clock())

    def transfer(self, event: TransferEvent) -> None:
        """TFTP: something happened to a transfer."""
        log.log(
            logging.INFO if event.kind in LOUD else logging.DEBUG,
            "tftp %s %s to %s: %d bytes in %.2f s %s",
            event.kind,
            event.path,
            event.client,
            event.bytes,
            event.seconds,
            event.detail,
        )
        mac = self.mac_of(event.client)
        if mac is None:
            return
        self.met(mac, event.client)
        name = without_prefix(event.path)
        now = self.clock()
        match event.kind:
            case "start":
                self._started(mac, name, event.detail, now)
            case "done":
                self._done(mac, name, now)
            case "missing" if mandatory(name):
                if self.boots.current(mac) is None:
                    self.boots.record(mac, Stage.FIRMWARE, now)  # another's DHCP: this is the first we hear of it
                self.boots.note(mac, Kind.MISSING, now, name)
            case "timeout":
                self.boots.note(mac, Kind.BROKEN, now, f"{name} ({event.bytes / 1e6:.1f} MB of it were sent)")

    def _started(self, mac: str, name: str, detail: str, now: float) -> None:
        self.boots.record(mac, Stage.FIRMWARE, now)
        if self.turns and name not in LIGHT:
            self.turns.reached(mac, Stage.FIRMWARE)
        if mandatory(name):
            boot = self.boots.current(mac)
            if detail == OLD_BLKSIZE and boot is not None and not boot.of(Kind.FILE):
                self.boots.note(mac, Kind.OLD_EEPROM, now, f"{OLD_BLKSIZE}, as before 2022-10")
            self.boots.note(mac, Kind.FILE, now, name)

    def _done(self, mac: str, name: str, now: float) -> None:
        self.boots.record(mac, Stage.FIRMWARE, now)
        if name == COMMAND_LINE:
            self.arm(mac)
        if name == KERNEL:
            self.boots.record(mac, Stage.KERNEL, now)
            if self.turns:
                self.turns.reached(mac, Stage.KERNEL)


def without_prefix(path: str) -> str:
    """The file's name as it lies in the boot folder: without the serial or MAC before it, without needless slashes."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) > 1 and (SERIAL.fullmatch(parts[0]) or MAC.fullmatch(parts[0])):
        parts = parts[1:]
    return "/".join(parts)
