"""The admission with a clock: whose turn it is to load, asked by DHCP and HTTP, told by TFTP and by the nodes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.nodes.boots import Stage
from kestrelpi.services.admission import Admission, Patience, Standing
from kestrelpi.services.dhcp.wire import interface_of

log = logging.getLogger("kestrelpi")

EVERY = 0.25
"""Seconds between two looks at whose turn it is."""
NEGOTIATES = 5.0
"""Seconds between two looks at how fast the link is: when we are started it may have no cable yet."""
GIGABIT = 1000
"""Mbit/s of a link that doesn't say how fast it is: Wi-Fi, a bridge without a port that is up."""
SLOWEST = 100
"""Mbit/s; what says less is a virtual interface that makes something up."""
CARRIED = 118e6 / 1000
"""Bytes a second of files that 1 Mbit/s carries, without what Ethernet, IP and UDP take."""
DEVICES = Path("/sys/class/net")


class Turns:
    """One in a daemon. `called` and `gone` are set by who wants to hear: MACs whose offer is to be sent, and MACs that
    were kept waiting and have given up."""

    def __init__(self, link: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`link`: bytes a second that it carries now. `clock`: seconds; not the time of day, which may be set."""
        self.admission = Admission(link(), clock())
        self._link = link
        self._measured = clock()
        self.called: Callable[[Sequence[str]], None] = lambda macs: None
        self.gone: Callable[[Sequence[str]], None] = lambda macs: None
        self._clock = clock

    def begin(self) -> None:
        """DHCP listens from now on."""
        self.admission.started = self._clock()

    def ask(self, mac: str, patience: Patience, xid: int, registered: bool = False) -> bool:
        """A boot loader, of a `registered` node or of a new Pi, sent a DISCOVER: whether it gets its offer now.

        Else `called` hears of it when it does.
        """
        return self.admission.ask(mac, patience, xid, self._clock(), registered)

    def waits(self, mac: str) -> bool:
        """Whether `mac` is kept waiting for its offer."""
        return self.admission.waits(mac)

    def root(self, mac: str) -> bool:
        """A Pi in its initramfs asks for its root: whether it may have it now."""
        return self.admission.root(mac, self._clock())

    def reached(self, mac: str, stage: Stage) -> None:
        """`mac` reached a stage."""
        self.admission.reached(mac, stage, self._clock())

    def look(self) -> None:
        """Call those whose turn it is."""
        now = self._clock()
        if now - self._measured > NEGOTIATES:
            self._measured, self.admission.link = now, self._link()
        called, gone = self.admission.turn(now)
        if called:
            self.called(called)
        if gone:
            log.warning("gave up while they were kept waiting for their offer: %s", ", ".join(gone))
            self.gone(gone)

    async def tend(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    @property
    def standing(self) -> Standing:
        return self.admission.standing

    @property
    def counters(self) -> Counter[str]:
        return self.admission.counters


def turns_of(config: Config) -> Turns | None:
    """The turns on the link to the nodes; None: the configuration wants none, or there is no link.

    Raises UserError: no such interface.
    """
    if not config.services.admission or config.listen.is_loopback:
        return None
    interface = config.network.interface or interface_of(config.listen)
    return Turns(lambda: link_speed(config, interface))


def link_speed(config: Config, interface: str, devices: Path = DEVICES) -> float:
    """Bytes a second that the frontend's link to the nodes carries: as configured, else as the interface says."""
    return (config.network.speed or _negotiated(devices / interface / "speed") or GIGABIT) * CARRIED


def _negotiated(file: Path) -> int:
    """Mbit/s; 0: it doesn't say (the kernel answers EINVAL or -1 then)."""
    try:
        mbit = int(file.read_text())
    except (OSError, ValueError):
        return 0
    return mbit if mbit >= SLOWEST else 0
