"""Which files each model asks for, in which order, and what it makes of them (published TFTP logs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kestrelpi.lab import configtxt
from kestrelpi.lab.configtxt import ConfigTxt
from kestrelpi.lab.failure import LED, BootFailure
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.profiles import TftpTraits
from kestrelpi.lab.tftp import Result, Transfer

Keep = Callable[[str, Transfer], None]
"""Takes each transfer with the file's name without prefix."""
HERE = (Result.GOT, Result.TRUNCATED)


class Client(Protocol):
    """Where files come from: a TftpClient, or a folder that is examined."""

    @property
    def traits(self) -> TftpTraits: ...

    def get(self, path: str) -> Transfer: ...

    def probe(self, path: str) -> Transfer: ...


@dataclass
class Files:
    """The files of one Pi: its prefix, and what came of each request."""

    client: Client
    prefix: str
    keep: Keep

    @property
    def traits(self) -> TftpTraits:
        return self.client.traits

    def get(self, name: str) -> Transfer:
        transfer = self.client.get(self.prefix + name)
        self.keep(name, transfer)
        return transfer

    def there(self, name: str) -> bool:
        """Probe: ask, and end it with the first packet."""
        transfer = self.client.probe(self.prefix + name)
        self.keep(name, transfer)
        return transfer.result is Result.PROBED

    def twice(self, name: str) -> Transfer | None:
        """Probe, then get what is there."""
        return self.get(name) if self.there(name) else None


@dataclass
class Loaded:
    """What the firmware starts: names as they were asked for, without prefix."""

    kernel: str = ""
    initramfs: tuple[str, ...] = ()
    cmdline: str = ""
    dtb: str = ""
    overlays: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(transfer: Transfer | None) -> bytes | None:
    """The content that a request brought, or None."""
    return transfer.content if transfer is not None and transfer.result in HERE else None


class Firmware:
    """The steps after DHCP, for one family each. `loaded` tells what came of them."""

    def __init__(self, pi: PiSpec, note: Callable[[str, str], None]) -> None:
        self.pi, self.profile, self.note = pi, pi.profile, note
        self.loaded = Loaded()

    # Pi 3 -----------------------------------------------------------------------------------------------------------

    def rom_3(self, files: Files) -> None:
        """The ROM fetches bootcode.bin from the root folder."""
        transfer = files.get("bootcode.bin")
        if load(transfer) is None:
            raise BootFailure("firmware", f"bootcode.bin: {_why(transfer)}")
        files.get("bootsig.bin")

    def bootcode_3(self, files: Files) -> None:
        """bootcode.bin fetches start.elf (prefix: the serial, dropped when start.elf isn't there), which goes on."""
        if not files.there("start.elf"):
            files.prefix = ""
            if not files.there("start.elf"):
                raise self._no_start("start.elf")
        files.there("start.elf")
        files.get("autoboot.txt")
        config = self._config(files.get("config.txt"), files.traits)
        self._no_recovery(files.get("recovery.elf"))
        self._start_elf(files, config)
        self.second_stage(files)

    # Pi 4 -----------------------------------------------------------------------------------------------------------

    def eeprom_4(self, files: Files) -> None:
        """The EEPROM fetches start4.elf; without start4.elf and start.elf under the prefix, the prefix is dropped."""
        if not (files.there("start4.elf") or files.there("start.elf")):
            files.prefix = ""
        config = self._config(files.get("config.txt"), files.traits)
        self._self_update(files.get("pieeprom.sig"), config)
        self._no_recovery(files.get("recover4.elf"))
        self._no_recovery(files.get("recovery.elf"))
        self._start_elf(files, config)

    def second_stage(self, files: Files) -> None:
        """start.elf and start4.elf: everything that Linux needs."""
        self._no_recovery(files.get("recovery.elf"))
        files.twice("config.txt")
        files.get("dt-blob.bin")
        self._no_recovery(files.get("recovery.elf"))
        config = self._config(files.twice("config.txt"), files.traits)
        self.loaded.warnings += config.warnings
        files.get("bootcfg.txt")
        os_prefix = self._os_prefix(files, config)
        self._initramfs(files, config, os_prefix)
        self._dtb(files, config, os_prefix)
        overlays = self._overlay_prefix(files, config, os_prefix)
        files.twice(f"{overlays}overlay_map.dtb")
        files.twice("config.txt")
        self._overlays(files, config, overlays)
        self._cmdline(files, config, os_prefix)
        files.get("recovery8.img")
        self._kernel(files, config, os_prefix)

    # Pi 5 -----------------------------------------------------------------------------------------------------------

    def eeprom_5(self, files: Files) -> None:
        """The EEPROM holds the firmware: config.txt comes first, and nothing named start or fixup is asked for.

        The place of initramfs and overlays in the order is a guess: no published log has a Linux image.
        """
        first = files.get("config.txt")
        if load(first) is None:
            files.prefix = ""
            first = files.get("config.txt")
        self._self_update(files.get("pieeprom.sig"), self._config(first, files.traits))
        config = self._config(files.twice("/config.txt"), files.traits)
        self.loaded.warnings += config.warnings
        os_prefix = self._os_prefix(files, config)
        kernel = self._find_kernel(files, config, os_prefix)
        self._initramfs(files, config, os_prefix)
        self._dtb(files, config, os_prefix)
        overlays = self._overlay_prefix(files, config, os_prefix)
        files.twice(f"{overlays}overlay_map.dtb")
        self._overlays(files, config, overlays)
        files.get(f"{overlays}hat_map.dtb")
        self._cmdline(files, config, f"/{os_prefix}")
        files.get(config.text("armstub", self.profile.armstub))
        self._get_kernel(files, kernel, config)

    # steps ----------------------------------------------------------------------------------------------------------

    def _config(self, transfer: Transfer | None, traits: TftpTraits) -> ConfigTxt:
        content = load(transfer)
        if content is None:
            return configtxt.parse(b"", self.pi)
        assert transfer is not None
        if traits.needs_oack and not transfer.acknowledged:
            empty = configtxt.parse(b"", self.pi)
            empty.warnings.append("config.txt came without an option acknowledgement: a Pi 4 ignores it")
            return empty
        return configtxt.parse(content, self.pi)

    def _start_elf(self, files: Files, config: ConfigTxt) -> None:
        start, fixup = configtxt.firmware_files(config, self.profile.family)
        transfer = files.get(start)
        if load(transfer) is None and self.profile.family == 4 and not config.text("start_file"):
            transfer = files.get("start.elf")
        if load(transfer) is None:
            raise self._no_start(start, transfer)
        if load(fixed := files.get(fixup)) is None:
            self.loaded.warnings.append(f"{fixup}: {_why(fixed)}: the memory of the Pi is not set up fully")

    def _no_start(self, name: str, transfer: Transfer | None = None) -> BootFailure:
        why = _why(transfer) if transfer else "not found under the serial's folder nor in the root"
        return BootFailure("firmware", f"{name}: {why}", LED["firmware"])

    def _no_recovery(self, transfer: Transfer) -> None:
        if load(transfer) is not None:
            raise BootFailure("firmware", f"{transfer.path} was served: a Pi starts it instead of Linux")

    def _self_update(self, transfer: Transfer, config: ConfigTxt) -> None:
        if load(transfer) is not None and config.flag("bootloader_update", True):
            self.loaded.warnings.append(f"{transfer.path} was served: a Pi updates its EEPROM from it")

    def _os_prefix(self, files: Files, config: ConfigTxt) -> str:
        """A prefix that holds no kernel or no device tree is ignored."""
        prefix = config.text("os_prefix", "upstream/" if config.flag("upstream_kernel") else "")
        if not prefix:
            return ""
        kernels = configtxt.kernel_names(config, self.profile.kernels)
        if not any(files.there(prefix + name) for name in kernels):
            return ""
        return prefix if any(files.there(prefix + name) for name in self._dtb_names(config)) else ""

    def _overlay_prefix(self, files: Files, config: ConfigTxt, os_prefix: str) -> str:
        plain = config.text("overlay_prefix", "overlays/")
        return os_prefix + plain if os_prefix and files.there(f"{os_prefix}{plain}README") else plain

    def _initramfs(self, files: Files, config: ConfigTxt, os_prefix: str) -> None:
        names = configtxt.initramfs_names(config, configtxt.kernel_names(config, self.profile.kernels)[0])
        for name in names:
            transfer = files.get(os_prefix + name)
            if load(transfer) is None:
                self.loaded.warnings.append(f"{transfer.path}: {_why(transfer)}: started without it")
            else:
                self.loaded.initramfs += (os_prefix + name,)

    def _dtb_names(self, config: ConfigTxt) -> tuple[str, ...]:
        if "device_tree" in config.values:
            return (config.text("device_tree"),)
        names = (self.profile.dtb, self.profile.upstream_dtb)
        return tuple(dict.fromkeys(reversed(names) if config.flag("upstream_kernel") else names))

    def _dtb(self, files: Files, config: ConfigTxt, os_prefix: str) -> None:
        names = self._dtb_names(config)
        for name in filter(None, names):
            if load(files.twice(os_prefix + name)) is not None:
                self.loaded.dtb = os_prefix + name
                return
        if self.profile.family == 5 and not config.flag("os_check", True):
            self.loaded.warnings.append(f"no device tree: none of {', '.join(names)} is there")
            return
        raise BootFailure("kernel", f"no device tree: none of {', '.join(names)} is there")

    def _overlays(self, files: Files, config: ConfigTxt, folder: str) -> None:
        downstream = self.loaded.dtb.endswith(self.profile.dtb) and self.profile.dtb != self.profile.upstream_dtb
        wanted = ["upstream"] if config.flag("upstream_kernel") and downstream else []
        for name in wanted + config.overlays:
            if load(files.twice(f"{folder}{name}.dtbo")) is None:
                self.loaded.warnings.append(f"{folder}{name}.dtbo is not there: started without it")
            else:
                self.loaded.overlays.append(f"{folder}{name}.dtbo")

    def _cmdline(self, files: Files, config: ConfigTxt, prefix: str) -> None:
        content = load(files.twice(prefix + config.text("cmdline", "cmdline.txt")))
        if content is None:
            self.loaded.warnings.append("no cmdline.txt: started with the firmware's own command line alone")
            return
        lines = content.decode("ascii", "replace").splitlines() or [""]
        self.loaded.cmdline = lines[0].strip()
        if any(line.strip() for line in lines[1:]):
            self.loaded.warnings.append("cmdline.txt: only its first line counts")

    def _kernel(self, files: Files, config: ConfigTxt, os_prefix: str) -> None:
        name = self._find_kernel(files, config, os_prefix)
        files.there(name)
        files.get(config.text("armstub", self.profile.armstub))
        self._get_kernel(files, name, config)

    def _find_kernel(self, files: Files, config: ConfigTxt, os_prefix: str) -> str:
        """A name that times out counts as missing, like one that isn't there (I, firmware#1292)."""
        names = configtxt.kernel_names(config, self.profile.kernels)
        for name in names:
            if files.there(os_prefix + name):
                if name != names[0]:
                    self.loaded.warnings.append(f"{names[0]} is not there: {name} is started instead")
                return os_prefix + name
        raise BootFailure("kernel", f"none of {', '.join(names)} is there", LED["kernel"])

    def _get_kernel(self, files: Files, name: str, config: ConfigTxt) -> None:
        transfer = files.get(name)
        if transfer.result is not Result.GOT:
            raise BootFailure("kernel", f"{name}: {_why(transfer)}", LED["kernel"])
        known = name.endswith("kernel8.img")
        if not known and not config.flag("arm_64bit", self.profile.starts_64bit):
            raise BootFailure("kernel", f"{name} is started in 32-bit mode: config.txt lacks arm_64bit=1")
        self.loaded.kernel = name


def _why(transfer: Transfer) -> str:
    if transfer.result is Result.TIMEOUT:
        return f"no answer in {transfer.seconds:.0f} s"
    if transfer.result is Result.TRUNCATED:
        return f"cut off after {transfer.size} bytes: this firmware reads no further than block 65535"
    return transfer.error or transfer.result
