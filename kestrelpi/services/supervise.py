"""Children of the daemon: programs that it starts, watches, starts again with a back-off, and ends with itself.

For machines without systemd as process 1 (a container, the lab), and for what must live and die with the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.pdeathsig import dies_with_us
from kestrelpi.run import Process, start, stop

log = logging.getLogger("kestrelpi")

POLL = 0.5
"""Seconds between two looks at a child."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before a child that ended is started again; doubled each time."""
STEADY = 60.0
"""A child that lived for so many seconds starts again with FIRST_DELAY."""
READY_WITHIN = 60.0
GRACE = 10.0
"""Seconds that a child has to end after SIGTERM."""


@dataclass(frozen=True)
class Child:
    """What to run."""

    name: str
    argv: tuple[str, ...]
    log: Path
    """Its output is added to this file."""
    user: str = "root"
    capabilities: tuple[str, ...] = ()
    """Kept although the user isn't root, such as `net_bind_service`."""
    folders: tuple[Path, ...] = ()
    """Made before each start, owned by `user`."""
    socket: Path | None = None
    """A unix socket that answers when it is ready."""
    tcp: tuple[str, int] | None = None
    """An address and port that answers when it is ready."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """The argv that really runs: as its user, and ended by the kernel when the daemon dies, however that dies."""
        words = []
        if self.user != "root":
            words += ["--reuid", self.user, "--regid", str(user_ids(self.user)[1]), "--init-groups"]
        if self.capabilities:
            kept = ",".join(f"+{name}" for name in self.capabilities)
            words += ["--inh-caps", kept, "--ambient-caps", kept]
        return dies_with_us(self.argv, "TERM", words)


def user_ids(name: str) -> tuple[int, int]:
    """uid and gid of a user of this machine; raises UserError."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise UserError(
            f"there is no user {name}",
            where="/etc/passwd",
            fix="install the packages of the frontend's modules: kestrelpi reconfigure --frontend",
        ) from None
    return found.pw_uid, found.pw_gid


def delay_after(failures: int) -> float:
    """Seconds to wait after so many short lives in a row (1 is the first)."""
    return min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)


class Supervised:
    """One child: `start`, then `watch` in a task, then `stop`. All in the daemon's main thread, whose end ends it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.restarts = 0
        self._process: Process | None = None
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """0: it doesn't run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    async def start(self) -> None:
        """Start it, and wait until it answers; raises UserError with the end of its log when it doesn't."""
        self._launch()
        await self._until_ready()
        self._task = asyncio.create_task(self._watch())

    async def restart(self) -> None:
        """End it and start it with the configuration that it finds now."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """End it; nothing of it stays."""
        if self._task:
            self._task.cancel()
            self._task = None
        if self._process:
            await asyncio.to_thread(stop, self._process, GRACE)
            self._process = None

    def _launch(self) -> None:
        child = self.child
        make_folders(child)
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as output:
            self._process = start(child.command, env=child.environment, output=output)
        self._began = time.monotonic()

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not answers(self.child):
            assert self._process is not None
            status = self._process.poll()
            if status is not None:
                raise UserError(
                    f"{self.child.name} ended with status {status} at its start",
                    where=str(self.child.log),
                    detail=last_lines(self.child.log),
                )
            if time.monotonic() > deadline:
                raise UserError(f"{self.child.name} does not answer", where=str(self.child.log))
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(POLL)
            if self._process is None or self._process.poll() is None:
                continue
            lived = time.monotonic() - self._began
            failures = 1 if lived > STEADY else failures + 1
            log.error(
                "%s ended with status %s after %.0f s; its log: %s",
                self.child.name,
                self._process.returncode,
                lived,
                self.child.log,
            )
            await asyncio.sleep(delay_after(failures))
            self.restarts += 1
            self._launch()


def make_folders(child: Child) -> None:
    """The folders of a service, owned by its user; raises UserError when there is no such user."""
    uid, gid = (0, 0) if child.user == "root" else user_ids(child.user)
    for folder in child.folders:
        make_folder(folder, uid, gid)


def make_folder(folder: Path, uid: int, gid: int) -> None:
    """`folder`, owned so, mode 0755; its new parents belong to us."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, uid, gid)


def answers(child: Child) -> bool:
    """Whether it can be connected to; a child without a way to ask is ready at once."""
    if child.socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(child.socket)) == 0
    if child.tcp:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            return probe.connect_ex(child.tcp) == 0
    return True


def last_lines(path: Path, count: int = 10) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
