"""Slurm's power saving: what slurmctld wants switched, which it may not do itself, as it isn't root."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.halting import halt_by_ssh
from kestrelpi.nodes.power import State, driver, spool, switch, wishes
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths

log = logging.getLogger("kestrelpi")

POLL = 1.0
"""Seconds between two looks at the spool."""


@dataclass(frozen=True)
class PowerWishes:
    """Carries them out. `state` gives the current configuration and registry."""

    paths: Paths
    state: Callable[[], tuple[Config, Registry]]

    async def tend(self) -> None:
        """Look and carry out, until cancelled. On and off don't wait for each other: halting takes its time."""
        queues: dict[State, asyncio.Queue[tuple[str, ...]]] = {"on": asyncio.Queue(), "off": asyncio.Queue()}
        workers = [asyncio.create_task(self._work(state, queue)) for state, queue in queues.items()]
        try:
            while True:
                for state, names in wishes(spool(self.paths.root)):
                    queues[state].put_nowait(names)
                await asyncio.sleep(POLL)
        finally:
            for worker in workers:
                worker.cancel()

    async def _work(self, state: State, queue: asyncio.Queue[tuple[str, ...]]) -> None:
        while True:
            names = await queue.get()
            await asyncio.to_thread(self._switch, state, names)

    def _switch(self, state: State, names: tuple[str, ...]) -> None:
        config, registry = self.state()

        enter = partial(ssh_command, self.paths, config)
        nodes = [registry.by_name[name] for name in names if name in registry.by_name]
        try:
            for one in switch(nodes, state, driver(config), config.power, halt_by_ssh(enter, config.power)):
                if one.error:
                    log.error("%s could not be switched %s: %s", one.node.name, state, one.error)
                else:
                    log.info("switched %s %s for Slurm", one.node.name, state)
        except UserError as error:
            log.error("Slurm wants %s switched %s: %s", " ".join(names), state, error)
