"""The TFTP server in processes of its own: the daemon's event loop must not stand in the way of 100 MB a second.

The parent binds the port (its errors are the user's, and no request is lost while a worker starts again) and hands the
socket over. Workers are spawned, not forked: the parent may have threads. They tell of transfers as JSON lines over one
pipe and end when the parent does, because their control pipe ends then; transfers that run are finished.
"""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from kestrelpi.services.tftp.server import RELOAD, STOP, Limits, TftpServer
from kestrelpi.services.tftp.sockets import open_listener
from kestrelpi.services.tftp.source import FileSource, TransferEvent

log = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20
"""Room for some 5,000 events, if the daemon is busy for a moment; a full pipe loses events, never transfers."""
LONGEST_PATH = 200
"""Characters of a path in an event: a line must stay below PIPE_BUF (4096 bytes), or lines of two workers mix."""
ORPHANED = 30.0
"""Seconds for which a worker sends on what it was sending when the daemon died: a Pi's limit for a file."""
RESTART_AFTER = 1.0
"""Seconds that a worker must have lived to be started again at once."""


@dataclass
class Worker:
    """A running worker."""

    process: BaseProcess
    control: Connection
    since: float


@dataclass(eq=False)
class TftpProcess:
    """`workers` processes that serve one port; `factory` makes each worker's FileSource and must be picklable."""

    listen: str
    port: int
    factory: Callable[[], FileSource]
    workers: int = 1
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self._running: list[Worker] = []
        self._rest = b""
        self._counters: dict[int, Counter[str]] = {}
        self._events, self._writer = multiprocessing.Pipe(duplex=False)
        fcntl.fcntl(self._writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._events.fileno(), False)
        os.set_blocking(self._writer.fileno(), False)

    def start(self) -> None:
        """Bind the port and start the workers; raises UserError when the port is taken."""
        # SO_REUSEPORT would share the port with any other server of this user that sets it: first see that it's free.
        first = open_listener(self.listen, self.port)
        if self.workers == 1:
            self._listeners = [first]
        else:
            first.close()
            self._listeners = [open_listener(self.listen, self.port, shared=True) for _ in range(self.workers)]
        self._running = [self._spawn(number) for number in range(self.workers)]

    def _spawn(self, number: int) -> Worker:
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        process = context.Process(
            target=work,
            args=(number, self._listeners[number], self._writer, theirs, self.factory, self.limits),
            name=f"kestrelpi-tftp-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        return Worker(process, ours, time.monotonic())

    def fileno(self) -> int:
        """Readable when `read` has something (asyncio's add_reader, select)."""
        return self._events.fileno()

    def read(self) -> list[TransferEvent]:
        """The events that wait; doesn't block."""
        try:
            data = self._rest + os.read(self._events.fileno(), PIPE_BYTES)
        except BlockingIOError:
            return []
        *lines, self._rest = data.split(b"\n")
        found = []
        for line in lines:
            said = json.loads(line)
            if "worker" in said:
                number = said.pop("worker")
                self._counters[number] = Counter(said)
            else:
                found.append(TransferEvent(**said))
        return found

    @property
    def counters(self) -> Counter[str]:
        """Packets, transfers and bytes by kind over all workers, a few seconds old."""
        return sum(self._counters.values(), Counter())

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid or 0 for worker in self._running]

    def tend(self) -> None:
        """Start dead workers again; call it every second or so. One that dies at once isn't started in a frenzy."""
        for number, worker in enumerate(self._running):
            if not worker.process.is_alive() and time.monotonic() - worker.since > RESTART_AFTER:
                log.error("TFTP worker %d ended with status %s: starting it again", number, worker.process.exitcode)
                worker.control.close()
                self._running[number] = self._spawn(number)

    def reload(self) -> None:
        """Make every worker's source reload; transfers go on."""
        self._say(RELOAD)

    def _say(self, word: bytes) -> None:
        for worker in self._running:
            try:
                os.write(worker.control.fileno(), word)
            except BrokenPipeError:
                log.debug("TFTP worker %s is gone already", worker.process.pid)

    def stop(self, grace: float = 5.0) -> None:
        """End the workers and give the port back."""
        self._say(STOP)
        for worker in self._running:
            worker.process.join(grace)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.control.close()
        self._running = []
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        self._events.close()
        self._writer.close()


def work(
    number: int,
    listener: socket.socket,
    events: Connection,
    control: Connection,
    factory: Callable[[], FileSource],
    limits: Limits,
) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent tells us when to end
    listener.setblocking(False)
    pipe = events.fileno()

    def event(told: TransferEvent) -> None:
        said = dict(vars(told))
        said["path"] = said["path"][:LONGEST_PATH]
        said["detail"] = said["detail"][:LONGEST_PATH]
        tell(pipe, said)

    def counted(counters: Mapping[str, int]) -> None:
        tell(pipe, {"worker": number, **counters})

    server = TftpServer("", 0, factory(), event, listener=listener, limits=limits, counted=counted)
    server.serve(control.fileno(), ORPHANED)


def tell(pipe: int, said: Mapping[str, object]) -> None:
    """Write one line, if there is room for it."""
    try:
        os.write(pipe, json.dumps(said, separators=(",", ":")).encode() + b"\n")
    except BlockingIOError:
        log.debug("the daemon reads no events: one is lost")
    except BrokenPipeError:
        log.debug("the daemon is gone")  # the control pipe's end stops us in a moment
