"""More Pis than the link carries, and a daemon that dies among them: `kestrelpi serve`, simulated boot loaders."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.loader import LoaderReport
from kestrelpi.lab.network import BRIDGE
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.lab.ready import wait_for_services
from kestrelpi.nodes import boots
from kestrelpi.nodes.boots import FOR_OFFER, Kind, Stage
from kestrelpi.paths import Paths
from kestrelpi.services import control
from kestrelpi.services.admission import AT_LEAST, ROM
from tests import waiting
from tests.integration.servers import started
from tests.integration.test_lab_dnsmasq import Bench, said
from tests.integration.test_lab_serve import furnish
from tests.program import program

CONFIG = """\
network: {address: 10.97.0.1/24, speed: 1}
services: {nfs: {backend: none}, dhcp: {rom_delay: 1s}}
images: {default: {modules: []}}
"""
PI_3 = [model for model, profile in PROFILES.items() if profile.family == 3]
EEPROMS = [model for model in PROFILES if model not in PI_3]


class Room:
    """A lab whose daemon is ours to kill, and Pis that take every place there is."""

    def __init__(self, lab: Lab, bench: Bench) -> None:
        self.lab, self.bench = lab, bench
        self.crowds = f"{lab.network.namespace}-crowd"
        self.begun: dict[str, int] = {}

    @contextmanager
    def serving(self) -> Iterator[int]:
        """`kestrelpi serve` in the lab's network; yields its process id."""
        argv = program(self.bench.paths.root, "serve")
        log = self.lab.serve_log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            begin = out.tell()
            process = started(self.lab.enter(argv), output=out)
        try:
            wait_for_services(process, self.lab.config, log, begin, 60)
            yield process.pid
        finally:
            run.stop(process)

    @contextmanager
    def crowd(self) -> Iterator[None]:
        """As many Pis as never wait, which ask and load nothing."""
        argv = [sys.executable, "-m", "tests.integration.crowd", str(AT_LEAST)]
        process = started(["ip", "netns", "exec", self.crowds, *argv])
        try:
            until(lambda: self.storm()["files"] >= AT_LEAST, "the crowd")
            # who is heard before has perhaps asked for long, and isn't kept waiting
            until(lambda: time.time() - control.status(self.bench.paths)["started"] > ROM.interval + 2, "some time")
            yield
        finally:
            run.stop(process)

    def storm(self) -> dict[str, float]:
        """What the daemon says of who loads and who waits."""
        found: dict[str, float] = control.status(self.bench.paths)["storm"]
        return found

    def cli(self, *words: str) -> str:
        """What a command on the frontend prints."""
        return run.run(program(self.bench.paths.root, *words)).stdout

    def held(self, model: str) -> bool:
        """Whether this Pi is kept waiting."""
        found = boots.read(self.bench.paths.boots, self.bench.pis[model].mac)
        return bool(found) and FOR_OFFER in found[-1].of(Kind.HELD) and Stage.OFFER not in found[-1].stages


until = partial(waiting.until, seconds=40)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("storm")
    paths = Paths(folder / "root")
    furnish(paths, CONFIG)
    with Lab(paths, parse(CONFIG), attached=True) as lab:
        bench = Bench(lab.network, folder)
        lab.up(list(bench.pis.values()), on=False, serve=False)
        made = Room(lab, bench)
        run.run(["ip", "netns", "add", made.crowds])
        add = f"link add crowd type veth peer name eth0 netns {made.crowds}"
        run.run(["ip", "-n", lab.network.namespace, *add.split()])
        run.run(["ip", "-n", lab.network.namespace, *f"link set crowd up master {BRIDGE}".split()])
        run.run(["ip", "-n", made.crowds, "link", "set", "eth0", "up"])
        yield made


Reports = dict[str, "Future[LoaderReport]"]


@contextmanager
def booting(room: Room) -> Iterator[Callable[[Iterable[str]], Reports]]:
    """Gives Pis power, each once."""
    with ThreadPoolExecutor(len(PROFILES)) as pool:
        yield lambda models: {model: pool.submit(room.bench.boot, room.bench.pis[model]) for model in models}


def all_started(reports: Reports) -> None:
    for model, report in reports.items():
        done = report.result(120)
        assert (done.failure, done.started, said(done)) == ("", True, []), model


def test_pis_wait_for_their_turn_and_then_boot(room: Room) -> None:
    with room.serving(), booting(room) as boot:
        with room.crowd():
            reports = boot(["4", "5"])  # the patient ones first: this machine may be slow to start them
            until(lambda: room.held("4") and room.held("5"), "the waiting")
            reports |= boot(["3B"])
            until(lambda: room.held("3B"), "the waiting")
            assert not any(report.done() for report in reports.values())
            assert re.search(r"many Pis boot: 16 load files \([1-3] wait for that\)", room.cli("status"))
        all_started(reports)
        assert room.storm()["waiting_files"] == 0


def test_no_pi_is_lost_when_the_daemon_is_killed_in_the_middle(room: Room) -> None:
    """They keep asking; a Pi 3 only five times in 25 s, so its last tries must be answered at once."""
    with booting(room) as boot:
        with room.serving() as pid, room.crowd():
            reports = boot(EEPROMS)
            until(lambda: all(map(room.held, EEPROMS)), "the waiting")
            reports |= boot(PI_3)
            until(lambda: all(map(room.held, PI_3)), "the waiting")
            os.kill(pid, signal.SIGKILL)
        with room.serving():
            all_started(reports)
