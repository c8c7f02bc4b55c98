"""QEMU for one Pi: it starts what the boot loader downloaded, and says how the guest ended."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.lab.fdt import with_root_properties
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.pdeathsig import dies_with_us

QEMU = "qemu-system-aarch64"
CPUS = {3: "cortex-a53", 4: "cortex-a72", 5: "cortex-a76"}


class Board(StrEnum):
    """What QEMU emulates."""

    VIRT = "virt"
    """Fast, with a virtio network card; not a Pi's devices."""
    RASPI3B = "raspi3b"
    """A Pi 3B's devices, with the downloaded device tree and a network card on USB; slow."""


class Ended(StrEnum):
    """How the guest ended."""

    RESET = "reset"
    POWEROFF = "poweroff"
    CRASHED = "crashed"
    """The emulator itself ended."""


@dataclass(frozen=True)
class MachineSpec:
    """How one Pi is emulated."""

    pi: PiSpec
    board: Board
    memory: int
    """MiB; a raspi3b always has 1024."""
    tap: str
    console: Path
    """The log of its serial ports."""


def board_for(machine: str, pi: PiSpec) -> Board:
    """The board for `--machine` auto, virt or raspi3b; raises UserError."""
    if machine == Board.RASPI3B and pi.model != "3B":
        raise UserError(f"QEMU's raspi3b is a Pi 3B, not a {pi.model}", fix="use --model 3B, or --machine virt")
    return Board.RASPI3B if machine == Board.RASPI3B else Board.VIRT


def command_line(spec: MachineSpec, downloaded: str) -> str:
    """The downloaded command line as the board's firmware hands it over.

    A Pi's firmware puts the name of its serial port for `serial0`. QEMU's virt board has another port than every Pi, so
    that comes last: the last console is the one that init and the login prompt use.
    """
    port = "ttyAMA0" if spec.board is Board.VIRT else "ttyS1"
    words = [word.replace("console=serial0", f"console={port}") for word in downloaded.split()]
    consoles = [word.removeprefix("console=").split(",")[0] for word in words if word.startswith("console=")]
    if spec.board is Board.VIRT and consoles[-1:] != [port]:
        words.append(f"console={port}")
    return " ".join(words)


def qemu_argv(spec: MachineSpec, kernel: Path, initrd: Path | None, dtb: Path, cmdline: str) -> list[str]:
    """The emulator's command; QMP on its standard input and output."""
    virt = spec.board is Board.VIRT
    network = f"tap,id=n0,ifname={spec.tap},script=no,downscript=no"
    argv = [QEMU, *_processor(spec), "-nodefaults", "-display", "none", "-qmp", "stdio"]
    argv += ["-chardev", f"file,id=console,append=on,path={spec.console}"]
    # A Pi 3's pins carry its second port, the mini UART; the first one belongs to Bluetooth.
    argv += ["-serial", "chardev:console"] if virt else ["-serial", "null", "-serial", "chardev:console"]
    # A reset ends the run: the boot loader comes first again. The pause keeps QEMU there until its event is read.
    argv += ["-action", "reboot=shutdown,shutdown=pause"]
    argv += ["-kernel", str(kernel), "-dtb", str(dtb), "-append", cmdline]
    if initrd is not None:
        argv += ["-initrd", str(initrd)]
    argv += ["-netdev", network]
    if virt:
        return [*argv, "-device", f"virtio-net-pci,netdev=n0,mac={spec.pi.mac},romfile="]
    return [*argv, "-usb", "-device", f"usb-net,netdev=n0,mac={spec.pi.mac}"]


def _processor(spec: MachineSpec) -> list[str]:
    if spec.board is Board.RASPI3B:
        return ["-M", "raspi3b", "-accel", "tcg,thread=multi"]
    cpu = ["-cpu", CPUS[spec.pi.profile.family], "-accel", "tcg,thread=multi"]
    if platform.machine() == "aarch64" and os.access("/dev/kvm", os.W_OK):
        cpu = ["-cpu", "host", "-accel", "kvm"]
    return ["-M", "virt", *cpu, "-smp", "2", "-m", str(spec.memory)]


def device_tree(spec: MachineSpec, report: LoaderReport, folder: Path) -> Path:
    """The board's device tree with the Pi's serial and model, as its firmware would write them."""
    out = folder / "machine.dtb"
    if spec.board is Board.VIRT:
        base = folder / "virt.dtb"
        # Without the network card that is there by default: its ROM is in a package that QEMU doesn't need otherwise.
        run.run([QEMU, *_processor(spec), "-machine", f"dumpdtb={base}", "-display", "none", "-nic", "none"])
    else:
        base = folder / report.dtb
    serial = spec.pi.serial.rjust(16, "0")
    tree = with_root_properties(base.read_bytes(), {"model": spec.pi.profile.model, "serial-number": serial})
    out.write_bytes(tree)
    return out


class Machine:
    """A running emulator; a context manager that ends it."""

    def __init__(self, spec: MachineSpec, report: LoaderReport, folder: Path, say: Callable[[str], None]) -> None:
        self.spec, self.report, self.folder, self.say = spec, report, folder, say
        self._process: run.Process | None = None
        self._buffer = b""

    def __enter__(self) -> Machine:
        ours, theirs = socket.socketpair()
        self._socket = ours
        with theirs:
            self._process = run.start(dies_with_us(self._argv()), stdin=theirs.fileno(), output=theirs.fileno())
        self._command("qmp_capabilities")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        run.stop(self._process)
        self._socket.close()

    def _argv(self) -> list[str]:
        initrd = None
        if self.report.initramfs:
            # The firmware loads several one after the other; Linux reads them as one.
            initrd = self.folder / "machine.initrd"
            initrd.write_bytes(b"".join((self.folder / name).read_bytes() for name in self.report.initramfs))
        kernel = self.folder / self.report.kernel
        dtb = device_tree(self.spec, self.report, self.folder)
        return qemu_argv(self.spec, kernel, initrd, dtb, command_line(self.spec, self.report.cmdline))

    def fileno(self) -> int:
        """Readable when `ended` has something to look at."""
        return self._socket.fileno()

    def _command(self, name: str) -> None:
        self._socket.sendall(json.dumps({"execute": name}).encode() + b"\n")

    def ended(self) -> Ended | None:
        """How the guest ended, as far as QEMU has said by now; call it when `fileno` is readable."""
        data = self._socket.recv(65536)
        if not data:
            return Ended.CRASHED
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if (how := self.event(line)) is not None:
                return how
        return None

    def event(self, line: bytes) -> Ended | None:
        """What one line of QEMU's output says of the guest's end."""
        try:
            message = json.loads(line)
        except ValueError:
            # Standard error comes the same way.
            self.say(line.decode(errors="replace").strip())
            return None
        if message.get("event") != "SHUTDOWN":
            return None
        return Ended.RESET if message["data"]["reason"] == "guest-reset" else Ended.POWEROFF
