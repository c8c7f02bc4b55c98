"""The simulated boot loader of one Pi: DHCP, TFTP, and a folder with exactly what it downloaded."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi.lab.exchange import Exchange, Lease
from kestrelpi.lab.failure import BootFailure
from kestrelpi.lab.firmware import Files, Firmware
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.ports import Host
from kestrelpi.lab.profiles import DhcpTraits, TftpTraits
from kestrelpi.lab.tftp import Result, TftpClient, Transfer


@dataclass(frozen=True)
class Fetched:
    """One request of the boot loader."""

    name: str
    """The path as it was asked for, prefix included."""
    result: str
    """A tftp.Result."""
    size: int
    seconds: float
    blksize: int
    retries: int
    duplicates: int
    error: str = ""


@dataclass(frozen=True)
class Reached:
    """A stage, and when: seconds after power-on."""

    stage: str
    at: float


@dataclass
class LoaderReport:
    """What one run of the boot loader did."""

    model: str
    mac: str
    serial: str
    started: bool = False
    """Whether the kernel would run now."""
    failed_stage: str = ""
    failure: str = ""
    led: str = ""
    address: str = ""
    server: str = ""
    server_from: str = ""
    prefix: str = ""
    discovers: int = 0
    offer_after: float = 0.0
    """Seconds from the last DISCOVER of the first stage to its offer."""
    seconds: float = 0.0
    kernel: str = ""
    initramfs: list[str] = field(default_factory=list)
    cmdline: str = ""
    dtb: str = ""
    overlays: list[str] = field(default_factory=list)
    files: list[Fetched] = field(default_factory=list)
    stages: list[Reached] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What was received over TFTP."""
        return sum(one.size for one in self.files if one.result != Result.PROBED)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> LoaderReport:
        values = json.loads(text)
        values["files"] = [Fetched(**one) for one in values["files"]]
        values["stages"] = [Reached(**one) for one in values["stages"]]
        return cls(**values)


class BootLoader:
    """The ROM or EEPROM of `pi` on the interface `host`; files go into `folder`.

    `say` gets a line for each step; `waits` makes it wait for SD card and link first, as a real one does;
    `dhcp_timeout`: DHCP_TIMEOUT of an EEPROM's configuration, in seconds (a ROM has none).
    """

    def __init__(
        self,
        pi: PiSpec,
        host: Host,
        folder: Path,
        say: Callable[[str], None],
        *,
        waits: bool = False,
        dhcp_timeout: float | None = None,
    ) -> None:
        self.pi, self.host, self.folder, self.say, self.waits = pi, host, folder, say, waits
        self.dhcp_timeout = dhcp_timeout
        self.report = LoaderReport(pi.model, pi.mac, pi.serial)
        self._start = host.clock.now()
        self._warned: set[str] = set()

    def run(self) -> LoaderReport:
        """From power-on to the point where the kernel would start. Failures are in the report."""
        firmware = Firmware(self.pi, self._note)
        if self.waits:
            self.host.clock.sleep(self.pi.profile.timers.power_on)
        try:
            self._boot(firmware)
        except BootFailure as failure:
            self.report.failed_stage, self.report.failure, self.report.led = failure.stage, failure.reason, failure.led
            self.say(f"FAILED at {failure.stage}: {failure.reason}" + (f" (LED: {failure.led})" if failure.led else ""))
        else:
            self.report.started = True
            self._note("kernel", f"starting {firmware.loaded.kernel}")
        loaded = firmware.loaded
        self.report.kernel, self.report.cmdline, self.report.dtb = loaded.kernel, loaded.cmdline, loaded.dtb
        self.report.initramfs, self.report.overlays = list(loaded.initramfs), loaded.overlays
        for warning in loaded.warnings:
            self._warn(warning)
        self.report.seconds = self._elapsed()
        return self.report

    def _boot(self, firmware: Firmware) -> None:
        profile = self.pi.profile
        lease = self._dhcp(profile.dhcp)
        serial = f"{self.pi.serial}/"
        if profile.family == 3:
            firmware.rom_3(self._files(profile.tftp, lease, ""))
            if profile.second_dhcp is not None:
                lease = self._dhcp(profile.second_dhcp)
            files = self._files(profile.second_tftp, lease, serial)
            firmware.bootcode_3(files)
        elif profile.family == 4:
            first = self._files(profile.tftp, lease, serial)
            firmware.eeprom_4(first)
            files = self._files(profile.second_tftp, lease, first.prefix)
            firmware.second_stage(files)
        else:
            files = self._files(profile.tftp, lease, serial)
            firmware.eeprom_5(files)
        self.report.prefix = files.prefix

    def _dhcp(self, traits: DhcpTraits) -> Lease:
        if self.dhcp_timeout is not None and self.pi.profile.family > 3:
            traits = dataclasses.replace(traits, timeout=self.dhcp_timeout)
        xid = traits.xid if traits.xid is not None else random.getrandbits(32)
        exchange = Exchange(self.pi, traits, xid, self.host, self._note)
        try:
            lease = exchange.run()
        finally:
            self.report.discovers += exchange.discovers
        self.report.address, self.report.server = str(lease.address), str(lease.server)
        self.report.server_from = lease.server_from
        self.report.offer_after = self.report.offer_after or lease.offer_after
        self.say(f"address {lease.address}, TFTP server {lease.server} ({lease.server_from})")
        return lease

    def _files(self, traits: TftpTraits, lease: Lease, prefix: str) -> Files:
        def keep(name: str, transfer: Transfer) -> None:
            self._keep(name, transfer)
            if transfer.duplicates and traits.hangs_on_duplicates:
                self._warn(f"{transfer.path}: {transfer.duplicates} blocks came twice: start4.elf of a real Pi hangs")

        return Files(TftpClient(traits, self.host, lease.server), prefix, keep)

    def _keep(self, name: str, transfer: Transfer) -> None:
        """Store what came, and note how."""
        if not any(one.stage == "firmware" for one in self.report.stages):
            self._note("firmware", f"first file: {transfer.path}")
        self.report.files.append(
            Fetched(
                transfer.path,
                transfer.result,
                transfer.size,
                round(transfer.seconds, 4),
                transfer.blksize,
                transfer.retries,
                transfer.duplicates,
                transfer.error,
            )
        )
        if transfer.result is not Result.PROBED:
            self.say(f"TFTP {transfer.path}: {transfer.result}, {transfer.size} bytes in {transfer.seconds:.2f} s")
        if transfer.result is Result.TRUNCATED:
            self._warn(f"{transfer.path}: cut off after {transfer.size} bytes")
        if transfer.result in (Result.GOT, Result.TRUNCATED):
            path = self.folder / name.lstrip("/")
            if ".." in path.parts:
                raise BootFailure("firmware", f"config.txt names {name!r}: the lab stores no file outside its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(transfer.content)

    def _note(self, stage: str, text: str) -> None:
        if not self.report.stages or self.report.stages[-1].stage != stage:
            self.report.stages.append(Reached(stage, round(self._elapsed(), 4)))
        self.say(text)

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.report.warnings.append(text)
            self.say(f"warning: {text}")

    def _elapsed(self) -> float:
        return self.host.clock.now() - self._start
