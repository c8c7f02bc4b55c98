"""The lab: emulated Pis and the frontend's services in a network of their own."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import locked
from kestrelpi.lab.identity import PiSpec, pi_spec
from kestrelpi.lab.machine import board_for
from kestrelpi.lab.network import LabNetwork, lab_name
from kestrelpi.lab.pi import POWER_CYCLE, POWER_OFF
from kestrelpi.lab.ready import wait_for_services
from kestrelpi.lab.state import PiFolder, PiState, State, signal_supervisor
from kestrelpi.paths import Paths
from kestrelpi.pdeathsig import dies_with_us

READY_WITHIN = 60.0
"""Seconds that the services may take to listen."""


class Lab:
    """The lab of one frontend. As a context manager it is taken down at the end.

    `attached`: everything in it dies with this process, even by SIGKILL; otherwise it runs until `down`.
    """

    def __init__(
        self, paths: Paths, config: Config, name: str = "", *, config_path: Path | None = None, attached: bool = False
    ) -> None:
        self.paths, self.config, self.attached = paths, config, attached
        self.config_path = config_path or paths.config
        self.network = LabNetwork(name or lab_name(paths.root))
        self.folder = paths.state / "lab"
        self.serve_log = paths.log / "serve.log"

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def pis(self, models: Sequence[str]) -> list[PiSpec]:
        """A Pi of each model in turn; the same ones in every run of this lab."""
        return [pi_spec(self.network.name, index, model) for index, model in enumerate(models, 1)]

    def up(
        self,
        pis: Sequence[PiSpec],
        *,
        machine: str = "auto",
        memory: int = 1024,
        serve: bool = True,
        waits: bool = False,
        on: bool = True,
    ) -> None:
        """Make the network, start the services, and switch the Pis on. What fails half-way is taken down again.

        `machine`: auto, virt or raspi3b; `memory`: MiB a Pi; `waits`: the boot loaders take a real one's time first;
        `on`: False leaves the Pis without power until `power`.
        """
        flags = (["--waits"] if waits else []) + ([] if on else ["--off"])
        boards = [board_for(machine, pi) for pi in pis]
        with locked(self.paths.run / "lab.lock", "the lab"):
            if self.network.exists():
                raise UserError(
                    "the lab is up already", fix="see it with: kestrelpi lab status; end it: kestrelpi lab down"
                )
            try:
                self.network.create(self.config.network.address, pis)
                shutil.rmtree(self.folder, ignore_errors=True)
                if serve:
                    self._serve()
                for pi, board in zip(pis, boards, strict=True):
                    self._look_after(pi, ["--board", str(board), "--memory", str(memory), *flags])
            except BaseException:
                self._down()
                raise

    def down(self) -> None:
        """End everything that runs in the lab and remove its network; what was written stays. Nothing there: fine."""
        with locked(self.paths.run / "lab.lock", "the lab"):
            self._down()

    def _down(self) -> None:
        self.network.remove()
        for folder in self.folders():
            folder.state.unlink(missing_ok=True)

    def _serve(self) -> None:
        argv = [
            sys.executable, "-m", "kestrelpi", "--root", str(self.paths.root), "--config", str(self.config_path),
            "serve",
        ]  # fmt: skip
        self.serve_log.parent.mkdir(parents=True, exist_ok=True)
        with self.serve_log.open("ab") as log:
            begin = log.tell()
            process = run.start(self._owned(self.network.enter(argv)), output=log, new_session=not self.attached)
        wait_for_services(process, self.config, self.serve_log, begin, READY_WITHIN)

    def _look_after(self, pi: PiSpec, options: Sequence[str]) -> None:
        folder = self.folder_of(pi.index)
        folder.path.mkdir(parents=True)
        argv = [
            sys.executable, "-m", "kestrelpi.lab.pi", "--lab", self.network.name, "--index", str(pi.index),
            "--model", pi.model, "--mac", pi.mac, "--serial", pi.serial, "--folder", str(folder.path),
            *options,
        ]  # fmt: skip
        with folder.console.open("ab") as console:
            process = run.start(self._owned(self.network.enter(argv)), output=console, new_session=not self.attached)
        deadline = time.monotonic() + 10
        while not folder.state.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"Pi {pi.index} did not start: {folder.last_line()}", where=str(folder.console))
            time.sleep(0.02)

    def _owned(self, argv: Sequence[str]) -> list[str]:
        return dies_with_us(argv) if self.attached else list(argv)

    def exec(self, argv: Sequence[str | Path], timeout: float | None = None) -> run.Finished:
        """Run a command in the lab's network, where the frontend is. Raises CommandFailed."""
        self.must_be_up()
        return run.run(self.enter(argv), timeout=timeout)

    def enter(self, argv: Sequence[str | Path]) -> list[str]:
        """`argv` as a command in the lab's network."""
        return self.network.enter(argv)

    def must_be_up(self) -> None:
        """Raises UserError when the lab isn't up."""
        if not self.network.exists():
            raise UserError("the lab is not up", fix="start it with: kestrelpi lab up")

    def folder_of(self, index: int) -> PiFolder:
        return PiFolder(self.folder / f"pi-{index}")

    def folders(self) -> list[PiFolder]:
        """Those of all Pis, by number."""
        if not self.folder.is_dir():
            return []
        found = [one for one in self.folder.iterdir() if one.name.startswith("pi-")]
        return [PiFolder(one) for one in sorted(found, key=lambda one: int(one.name.removeprefix("pi-")))]

    def states(self) -> list[PiState]:
        """All Pis, by number."""
        self.must_be_up()
        return [folder.read_state().now() for folder in self.folders() if folder.state.exists()]

    def must_not_have_failed(self, *, patient: bool = False) -> None:
        """Raises UserError when a Pi's boot loader or its emulator gave up.

        Unless `patient`, also when the loader tries again, the Pi switched itself off, or Linux was reset.
        """
        gave_up = {State.DEAD, State.BROKEN, State.GONE} | (set() if patient else {State.RETRYING})
        for one in self.states():
            folder = self.folder_of(one.index)
            problem = ""
            if one.state in gave_up:
                problem = f"is {one.state}: {one.detail or folder.last_line()}"
            elif one.state is State.OFF and not patient:
                problem = f"is off: {one.detail}"
            elif one.boots > 1 and not patient:
                problem = "was reset while it booted"
            if problem:
                raise UserError(f"Pi {one.index} {problem}", where=str(folder.console), detail=folder.last_words())

    def power(self, index: int, action: str) -> None:
        """Switch Pi `index` `on`, `off`, or off and on (`cycle`)."""
        state = self.folder_of(index).read_state().now()
        if state.state is State.GONE:
            raise UserError(
                f"nobody looks after Pi {index} any more: its supervisor was killed",
                fix="kestrelpi lab down, then kestrelpi lab up",
            )
        off = state.state in (State.OFF, State.DEAD, State.BROKEN)
        if action == "off" and state.state is not State.OFF:
            signal_supervisor(state, POWER_OFF)
        elif action == "cycle" or (action == "on" and off):
            signal_supervisor(state, POWER_CYCLE)

    def wait_for(self, index: int, wanted: State, timeout: float) -> PiState:
        """Wait until Pi `index` is in the state `wanted`; raises UserError with its console's last line."""
        folder = self.folder_of(index)
        deadline = time.monotonic() + timeout
        while (state := folder.read_state().now()).state is not wanted:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Pi {index} is {state.state} after {timeout:g} s, not {wanted}",
                    where=str(folder.console),
                    detail=f"{state.detail}\n{folder.last_line()}".strip(),
                )
            time.sleep(0.05)
        return state
