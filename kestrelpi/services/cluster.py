"""The frontend's services of modules (Munge, slurmctld, …): their files and secrets, their start, their reload.

Where systemd is process 1 they are its units, which we start and start again; elsewhere they are our children.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images.module_file import Service
from kestrelpi.images.modules import Module
from kestrelpi.nodes.module_secrets import of_modules
from kestrelpi.run import run
from kestrelpi.services.module_files import Frontend
from kestrelpi.services.supervise import POLL, Supervised, make_folder, make_folders, user_ids
from kestrelpi.users.shared import publish

log = logging.getLogger("kestrelpi")

SETTLE = 1.0
"""Seconds without a change after which the services are told: a room of Pis is registered at once."""
RETRY = 30.0
"""Seconds before a service that didn't start is tried again."""
RELOAD_TRIES = 10
UNITS = "overlay/frontend/etc/systemd/"
"""Files of a module that systemd must read anew when they changed."""
COMMAND_TIMEOUT = 60.0
"""Seconds that systemctl or a reload command may take."""


class ClusterServices:
    """Started, refreshed and stopped by the daemon.

    A service that doesn't start is named in the log and in `failed`, and tried again at the next refresh: the nodes
    must be able to boot without it.
    """

    def __init__(self, frontend: Callable[[], Frontend], systemd: bool) -> None:
        """`frontend` gives the state that configuration and registry want now."""
        self.frontend = frontend
        self.systemd = systemd
        self.children: dict[str, Supervised] = {}
        self.running: set[str] = set()
        self.failed: dict[str, str] = {}
        self._due = time.monotonic() - SETTLE
        """When something changed last that isn't carried out yet; 0: nothing."""

    def changed(self) -> None:
        """The registry, the configuration or what is known of the nodes may be another now."""
        self._due = time.monotonic()

    async def tend(self) -> None:
        """Refresh now, after each change, and while something doesn't run; until cancelled."""
        refreshed = 0.0
        while True:
            now = time.monotonic()
            if (self._due and now - self._due >= SETTLE) or (self.failed and now - refreshed >= RETRY):
                self._due, refreshed = 0.0, now
                changed = await self.refresh()
                if changed:
                    log.info("brought up to date: %s", ", ".join(changed))
            await asyncio.sleep(POLL)

    async def refresh(self) -> list[str]:
        """Bring files, secrets and services to the current state; returns the modules that had something new."""
        try:
            frontend, changed = await asyncio.to_thread(self._written)
        except UserError as error:
            log.error("the services of the modules can't be brought up to date: %s", error)
            self.failed["configuration"] = str(error)
            return []
        self.failed.pop("configuration", None)
        await self._stop(self.running - {service.name for _, service in frontend.services()})
        for module, service in frontend.services():
            if module.name in changed or service.name not in self.running:
                await self._try(frontend, module, service, module.name in changed)
        return sorted(changed)

    def _written(self) -> tuple[Frontend, set[str]]:
        """What is wanted, and which modules had something new. In a thread: the files of 10,000 nodes take a second,
        and no Pi waits a second for an answer."""
        frontend = self.frontend()
        changed = write_secrets(frontend) | write_files(frontend)
        if "users" in frontend.enabled:
            publish(frontend.paths, frontend.config, frontend.registry)
        return frontend, changed

    async def stop(self) -> None:
        """End our children, the last started first; units of systemd stay."""
        await self._stop(list(self.children)[::-1])

    async def _try(self, frontend: Frontend, module: Module, service: Service, again: bool) -> None:
        try:
            await self._start(frontend, module, service, again)
        except UserError as error:
            log.error("%s of the module %s does not run: %s", service.name, module.name, error)
            self.failed[service.name] = str(error)
            await self._stop([service.name])
        else:
            log.info("%s of the module %s runs", service.name, module.name)
            self.failed.pop(service.name, None)
            self.running.add(service.name)

    async def _start(self, frontend: Frontend, module: Module, service: Service, again: bool) -> None:
        await asyncio.to_thread(frontend.verify, module, service)
        if self.systemd:
            make_folders(frontend.child(module, service))
            await command(["systemctl", "restart" if again else "start", service.unit])
        elif service.name in self.children:
            await self.children[service.name].restart()
        else:
            self.children[service.name] = Supervised(frontend.child(module, service))
            await self.children[service.name].start()
        words = frontend.reload_command(module, service)
        if again and words:
            await reload(service.name, words)

    async def _stop(self, names: Iterable[str]) -> None:
        for name in names:
            self.running.discard(name)
            child = self.children.pop(name, None)
            if child:
                await child.stop()


async def reload(name: str, words: list[str]) -> None:
    """Tell a service that has just started of its new files: it listens a little before it can be asked for that.

    When it can't be told, that is logged: it runs, which matters more.
    """
    for last in [False] * (RELOAD_TRIES - 1) + [True]:
        try:
            await command(words)
            return
        except UserError as error:
            if last:
                log.error("%s runs, but could not be told of its new files: %s", name, error)
        await asyncio.sleep(1)


async def command(words: list[str]) -> None:
    """Run a short command beside the loop; raises UserError when it fails."""
    await asyncio.to_thread(run, words, timeout=COMMAND_TIMEOUT)


def write_files(frontend: Frontend) -> set[str]:
    """Write the files that are new; returns the modules whose they are."""
    changed = set()
    for file in frontend.files():
        if not file.path.exists() or file.path.read_bytes() != file.content:
            write_whole(file.path, file.content, file.mode)
            changed.add(file.module)
    return changed


def write_secrets(frontend: Frontend) -> set[str]:
    """Make the modules' secrets, and put those that the frontend reads to their places; returns whose are new."""
    changed = set()
    for module, _, declared, content in of_modules(frontend.paths, frontend.enabled):
        if not declared.frontend:
            continue
        path = Path(f"{frontend.root}{declared.path}")
        if put_secret(path, content, int(declared.mode, 8), *user_ids(declared.owner)):
            changed.add(module.name)
    return changed


def put_secret(path: Path, content: bytes, mode: int, uid: int, gid: int) -> bool:
    """Bring the file to its content, mode and owner; whether anything was not so."""
    if path.is_file():
        found = path.stat()
        same = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, uid, gid)
        if same and path.read_bytes() == content:
            return False
    make_folder(path.parent, uid, gid)
    write_whole(path, content, mode)
    os.chown(path, uid, gid)
    return True
