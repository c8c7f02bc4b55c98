"""The supervisor of one emulated Pi: boot loader, then QEMU, and again after every reset. python -m kestrelpi.lab.pi …

SIGUSR1 cuts its power and gives it back, SIGUSR2 cuts it. Killed in whatever way, it takes its children with it.
"""

from __future__ import annotations

import dataclasses
import os
import select
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.machine import Board, Ended, Machine, MachineSpec
from kestrelpi.lab.network import INTERFACE, LabNetwork
from kestrelpi.lab.state import RESET, PiFolder, PiState, State, born, unix_time
from kestrelpi.pdeathsig import dies_with_us

POWER_CYCLE, POWER_OFF = signal.SIGUSR1, signal.SIGUSR2


class PowerCut(Exception):
    """The power went: off for good, or back at once."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.back = back


class Power:
    """Signals as something that a wait can see."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        for number in (POWER_CYCLE, POWER_OFF, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float | None = None, *others: int) -> list[int]:
        """Those of the file descriptors `others` that are readable, or none after `seconds`.

        Raises PowerCut, and SystemExit on SIGTERM.
        """
        ready, _, _ = select.select([self._read, *others], [], [], seconds)
        if self._read in ready:
            for number in os.read(self._read, 64):
                if number == signal.SIGTERM:
                    sys.exit(0)
                if number in (POWER_CYCLE, POWER_OFF):
                    raise PowerCut(back=number == POWER_CYCLE)
        return [one for one in ready if one != self._read]


@dataclass
class Supervisor:
    """Runs one Pi until its own end."""

    pi: PiSpec
    network: LabNetwork
    folder: PiFolder
    board: Board
    memory: int
    waits: bool
    power: Power
    on: bool = True
    """Whether it has power from the beginning."""

    def run(self) -> None:
        """Boot; after a reset or a power cycle again. Ends only with the process."""
        self.state = PiState(
            self.pi.index,
            self.pi.model,
            self.pi.mac,
            self.pi.serial,
            State.LOADER,
            unix_time(),
            os.getpid(),
            born(os.getpid()),
        )
        while True:
            try:
                if self.on:
                    self._live()
                else:
                    self._off(State.OFF)
            except PowerCut as cut:
                self.on = cut.back
                self.say("power cut" + (", and back" if self.on else ""))

    def _live(self) -> None:
        """Boot as often as the guest resets; ends by PowerCut."""
        while True:
            if not self._load():
                continue
            ended = self._emulate()
            if ended is Ended.POWEROFF:
                self._off(State.OFF, "the guest switched itself off")
            elif ended is Ended.CRASHED:
                self._off(State.BROKEN, f"{self.board}: the emulator ended; see {self.folder.console}")
            self.say(RESET)

    def _load(self) -> bool:
        """Run the boot loader; False when it failed and may try again."""
        self.network.connect(self.pi.index, "loader")
        shutil.rmtree(self.folder.downloads, ignore_errors=True)
        self.folder.report.unlink(missing_ok=True)
        self._become(State.LOADER, boots=self.state.boots + 1)
        argv: list[str | Path] = [
            sys.executable, "-m", "kestrelpi.lab.boot", "--model", self.pi.model, "--mac", self.pi.mac,
            "--serial", self.pi.serial, "--interface", INTERFACE, "--folder", self.folder.downloads,
            "--report", self.folder.report, *(["--waits"] if self.waits else []),
        ]  # fmt: skip
        with self.folder.console.open("ab") as console:
            inside = self.network.enter(argv, self.network.of(self.pi.index))
            process = run.start(dies_with_us(inside), output=console)
        exit_fd = os.pidfd_open(process.pid)
        try:
            self.power.wait(None, exit_fd)
        finally:
            os.close(exit_fd)
            run.stop(process, grace=0.1)
        report = self.folder.read_report()
        if report is None:
            self._off(State.BROKEN, f"the simulated boot loader crashed; see {self.folder.console}")
        elif not report.started:
            self._pause(f"{report.failed_stage}: {report.failure}")
        return report is not None and report.started

    def _pause(self, reason: str) -> None:
        """After a failed boot: an EEPROM tries again, a ROM waits for a power cycle."""
        again = self.pi.profile.timers.again
        if again is None:
            self._off(State.DEAD, reason)
        else:
            self._become(State.RETRYING, reason)
            self.power.wait(again)

    def _emulate(self) -> Ended:
        """Run QEMU until the guest ends."""
        self.network.connect(self.pi.index, "machine")
        spec = MachineSpec(
            self.pi, self.board, self.memory, self.network.tap(self.pi.index), self.folder.console
        )  # fmt: skip
        report = self.folder.read_report()
        assert report is not None
        with Machine(spec, report, self.folder.downloads, self.say) as machine:
            self._become(State.RUNNING)
            while True:
                self.power.wait(None, machine.fileno())
                if (ended := machine.ended()) is not None:
                    return ended

    def _off(self, state: State, detail: str = "") -> None:
        """Nothing runs until the power comes back."""
        self.network.connect(self.pi.index, "none")
        self._become(state, detail)
        while True:
            self.power.wait()

    def _become(self, state: State, detail: str = "", boots: int | None = None) -> None:
        self.state = dataclasses.replace(
            self.state,
            state=state,
            since=unix_time(),
            detail=detail,
            boots=self.state.boots if boots is None else boots,
        )
        self.folder.write_state(self.state)
        self.say(f"{state}" + (f": {detail}" if detail else ""))

    def say(self, text: str) -> None:
        """A line between those of the loader and of Linux."""
        with self.folder.console.open("a") as console:
            console.write(f"\n--- {self.pi.model} {self.pi.mac}: {text}\n")


@click.command()
@click.option("--lab", required=True)
@click.option("--index", type=int, required=True)
@click.option("--model", required=True)
@click.option("--mac", required=True)
@click.option("--serial", required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--board", type=click.Choice([str(board) for board in Board]), required=True)
@click.option("--memory", type=int, required=True)
@click.option("--waits", is_flag=True)
@click.option("--off", is_flag=True)
def main(
    lab: str,
    index: int,
    model: str,
    mac: str,
    serial: str,
    folder: Path,
    board: str,
    memory: int,
    waits: bool,
    off: bool,
) -> None:
    """Look after one emulated Pi."""
    pi = PiSpec(index, model, mac, serial)
    supervisor = Supervisor(pi, LabNetwork(lab), PiFolder(folder), Board(board), memory, waits, Power(), on=not off)
    try:
        supervisor.run()
    except UserError as error:
        # There is no terminal to tell: the console is where people look.
        supervisor.say(f"ended: {error}")
        sys.exit(error.status)


if __name__ == "__main__":
    main()
