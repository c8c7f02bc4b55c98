"""`kestrelpi serve`: every boot service in one daemon, from start to a clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from kestrelpi import __version__
from kestrelpi.config import Config, load
from kestrelpi.errors import UserError
from kestrelpi.files import Later, locked
from kestrelpi.frontend.machine import machine
from kestrelpi.nodes.boots import BootLog
from kestrelpi.nodes.files import RuntimeFiles
from kestrelpi.nodes.identity import Secrets
from kestrelpi.nodes.models import Identity
from kestrelpi.nodes.sightings import Sightings
from kestrelpi.paths import Paths
from kestrelpi.services import nfs, spanning_tree
from kestrelpi.services.bootfiles import BootFiles
from kestrelpi.services.cluster import ClusterServices
from kestrelpi.services.dhcp.server import DhcpServer
from kestrelpi.services.dhcp.wire import check_address, check_interface, interface_of
from kestrelpi.services.directory import Directory
from kestrelpi.services.dns import DnsServer
from kestrelpi.services.http import Http, application
from kestrelpi.services.meeting import Meeting
from kestrelpi.services.metrics import Metrics, Sources
from kestrelpi.services.module_files import Frontend
from kestrelpi.services.neighbours import Lately
from kestrelpi.services.node_api import NodeApi
from kestrelpi.services.observer import Observer
from kestrelpi.services.tftp.process import TftpProcess
from kestrelpi.services.turns import Turns, turns_of
from kestrelpi.services.wire_facts import WireFacts
from kestrelpi.services.wishes import PowerWishes

log = logging.getLogger("kestrelpi")

WATCH = 0.5
"""Seconds between two looks at the registry's file and the debounced writes."""


class Daemon:
    """The services of one frontend."""

    def __init__(self, paths: Paths, config_path: Path) -> None:
        self.paths = paths
        self.config_path = config_path
        self.config = load(config_path)
        self.directory = Directory(paths, self.config)
        self.metrics = Metrics()
        self.lines = Later()
        self.boots = BootLog(paths.boots, self.metrics.reached, self.lines)
        self.facts = WireFacts(paths.wire)
        self.meeting = Meeting(self.directory, self._met)
        self.turns: Turns | None = None
        self.dhcp: DhcpServer | None = None
        self.dns: DnsServer | None = None
        self.sightings = Sightings(paths.sightings)
        self.started = time.time()
        self.ganesha: nfs.Ganesha | None = None
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises UserError when a service can't start; nothing keeps running then."""
        with locked(self.paths.run / "serve.pid", "kestrelpi serve", wait=0):
            asyncio.run(self._main())

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            log.info("serving on %s as process %d", self.config.listen, os.getpid())
            watch = asyncio.create_task(self._watch())
            await self._stop.wait()
            log.info("stopping")
            await watch

    def _end(self) -> None:
        self._stop.set()
        self._reload.set()

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start each service and push its end; what was started ends again when a later one fails."""
        config = self.config
        if config.network.interface and not config.listen.is_loopback:
            check_interface(config.network.interface)
        check_address(str(config.listen))
        self.turns = turns_of(config)
        who = Lately().mac_of
        self.observer = Observer(self.boots, self.facts, self._arm, who, time.time, self.meeting.met, self.turns)
        stack.push_async_callback(self._flush, True)
        self._start_tftp(stack)
        if config.services.dhcp.listens:
            await self._start_dhcp(stack)
        if config.services.dns.enabled:
            self.dns = DnsServer(config, self.directory)
            stack.push_async_callback(self.dns.stop)
            await self.dns.start()
        self._listen_for_bridges(stack)
        self.api = NodeApi(
            self.directory,
            self.boots,
            self.sightings,
            Secrets(self.paths),
            RuntimeFiles(self.paths, self.config, self.directory.registry),
            time.time,
            self.meeting.met,
            self.turns,
        )
        http = Http(
            application(self.api, self.status, self.measured),
            str(config.listen),
            config.services.http.port,
            self.paths.run / "serve.sock",
        )
        stack.push_async_callback(http.stop)
        await http.start()
        await self._start_nfs(stack)
        here = machine(self.paths, config)
        self.cluster = ClusterServices(lambda: self._frontend(here.program), here.systemd)
        stack.push_async_callback(self.cluster.stop)
        wishes = PowerWishes(self.paths, lambda: (self.config, self.directory.registry))
        tasks = [self.cluster.tend(), wishes.tend(), self.meeting.tend()]
        for task in [*tasks, self.turns.tend()] if self.turns else tasks:
            stack.callback(asyncio.create_task(task).cancel)

    def _frontend(self, program: str) -> Frontend:
        """What the modules want of this machine now."""
        return Frontend.of(self.paths, self.config, self.directory.registry, dict(self.sightings.known), program)

    async def _start_dhcp(self, stack: AsyncExitStack) -> None:
        here = self.observer
        self.dhcp = DhcpServer(
            self.config,
            self.directory,
            self.paths.leases,
            here.stage,
            self._sighted,
            note=here.note,
            foreign=here.foreign,
            turns=self.turns,
        )
        stack.push_async_callback(self.dhcp.stop)
        await self.dhcp.start()

    def _listen_for_bridges(self, stack: AsyncExitStack) -> None:
        config = self.config
        if config.listen.is_loopback:
            return
        listener = spanning_tree.open_listener(config.network.interface or interface_of(config.listen))
        if listener:
            stack.enter_context(listener)
            loop = asyncio.get_running_loop()
            loop.add_reader(listener, spanning_tree.hear, listener, self.observer.bridge)
            stack.callback(loop.remove_reader, listener)

    def _start_tftp(self, stack: AsyncExitStack) -> None:
        tftp = self.config.services.tftp
        self.tftp = TftpProcess(str(self.config.listen), tftp.port, self._boot_files(), workers=tftp.workers)
        stack.callback(self.tftp.stop)
        self.tftp.start()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.tftp.fileno(), self._read_transfers)
        stack.callback(loop.remove_reader, self.tftp.fileno())

    def _boot_files(self) -> partial[BootFiles]:
        return partial(BootFiles, self.paths, self.config_path, (self.config, self.directory.registry))

    async def _start_nfs(self, stack: AsyncExitStack) -> None:
        kind = nfs.backend(self.config.services.nfs)
        if kind == "kernel":
            nfs.check_kernel()
        if kind == "ganesha":
            self.ganesha = nfs.Ganesha(self.paths, self.config)
            stack.push_async_callback(self.ganesha.stop)
            await self.ganesha.start()

    async def _watch(self) -> None:
        """Reload on SIGHUP and when the registry's file changes; write what is due."""
        while True:
            try:
                await asyncio.wait_for(self._reload.wait(), WATCH)
            except TimeoutError:
                if self.directory.changed():
                    self._take_anew(self.config)
            else:
                if self._stop.is_set():
                    return
                self._reload.clear()
                self._reload_all()
                if self.ganesha:
                    await self.ganesha.take_anew(self.config)
            if await self._flush(False):
                self.cluster.changed()
            self.tftp.tend()

    def _reload_all(self) -> None:
        try:
            config = load(self.config_path)
        except UserError as error:
            log.error("the configuration is not usable, the last good one stays in force: %s", error)
            return
        if (config.services, config.network) != (self.config.services, self.config.network):
            log.warning("changes of network and services come into force when kestrelpi serve is started again")
        self._take_anew(config)

    def _take_anew(self, config: Config) -> None:
        if self.directory.reload(config):
            self.config = config
            self.api.runtime = RuntimeFiles(self.paths, config, self.directory.registry)
            self.tftp.factory = self._boot_files()
            self.tftp.reload()
            self.cluster.changed()
            log.info("reloaded: %d nodes", len(self.directory.registry))

    async def _flush(self, force: bool) -> bool:
        """Write what is due, in a thread: fsync may take its time, and Pis don't wait. Whether Pis were seen."""
        now = time.time()
        facts, seen = self.facts.due(now, force), self.sightings.due(now, force)
        for write in (self.lines.due(force), facts, seen):
            try:
                if write:
                    await asyncio.to_thread(write)
            except OSError as error:
                log.error("what was seen of the Pis can't be written: %s", error)
        return seen is not None

    def _read_transfers(self) -> None:
        for event in self.tftp.read():
            self.observer.transfer(event)

    def _arm(self, mac: str) -> None:
        self.api.arm(mac)

    def _met(self, mac: str, address: IPv4Address) -> None:
        if self.dhcp:
            self.dhcp.met(mac, address)

    def _sighted(self, mac: str, said: Identity) -> None:
        self.sightings.see(mac, said, time.time())

    def measured(self) -> str:
        """What `/metrics` says."""
        stages = []
        for node in self.directory.registry:
            boot = self.boots.current(node.mac)
            stages.append(boot.current.value if boot else "")
        return self.metrics.text(
            Sources(
                version=__version__,
                started=self.started,
                dhcp=self.dhcp.counters if self.dhcp else {},
                dns=self.dns.counters if self.dns else {},
                tftp=self.tftp.counters,
                stages=stages,
                foreign=len(self.facts.servers),
                turns=self.turns,
            )
        )

    def status(self) -> dict[str, Any]:
        """What `kestrelpi status` shows."""
        nodes = []
        for node in self.directory.registry:
            boot = self.boots.current(node.mac)
            nodes.append(
                {
                    "name": node.name,
                    "mac": node.mac,
                    "address": str(node.address),
                    "stage": boot.current.value if boot else "",
                    "since": boot.last if boot else 0.0,
                    "detail": boot.details.get(boot.current, "") if boot else "",
                }
            )
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self.started,
            "listen": str(self.config.listen),
            "nfs": nfs.backend(self.config.services.nfs),
            "modules": {"running": sorted(self.cluster.running), "failed": self.cluster.failed},
            "storm": asdict(self.turns.standing) if self.turns else None,
            "nodes": nodes,
        }
