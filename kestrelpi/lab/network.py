"""The lab's own network: a namespace with a bridge for the frontend, and a namespace for each Pi's boot loader."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.lab.identity import PiSpec
from kestrelpi.run import CommandFailed, run

BRIDGE = "br0"
INTERFACE = "eth0"
"""The Pi's interface inside its namespace."""
NAMESPACES = Path("/run/netns")


def lab_name(root: Path) -> str:
    """A short name that follows from the root, so that two roots have two labs."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class LabNetwork:
    """The namespaces of the lab called `name`."""

    name: str

    @property
    def namespace(self) -> str:
        """Where the frontend's services and the emulators run."""
        return f"kpi-{self.name}"

    def of(self, index: int) -> str:
        """Where the boot loader of Pi `index` runs."""
        return f"{self.namespace}-{index}"

    def tap(self, index: int) -> str:
        """The emulator's interface on the bridge."""
        return f"tap{index}"

    def port(self, index: int) -> str:
        """The bridge's end of the boot loader's cable."""
        return f"vp{index}"

    def namespaces(self) -> list[str]:
        """Those that exist: the Pis' first, the lab's last."""
        if not NAMESPACES.is_dir():
            return []
        mine = [one.name for one in NAMESPACES.iterdir() if one.name.startswith(f"{self.namespace}-")]
        return sorted(mine) + ([self.namespace] if (NAMESPACES / self.namespace).exists() else [])

    def exists(self) -> bool:
        return (NAMESPACES / self.namespace).exists()

    def create(self, address: IPv4Interface, pis: Sequence[PiSpec]) -> None:
        """Make the bridge with the frontend's `address`, and a cable and a tap for each Pi."""
        if os.geteuid() != 0:
            raise UserError("the lab needs root: it makes network namespaces", fix="run it with sudo")
        self._no_tun_is_an_error()
        run(["ip", "netns", "add", self.namespace])
        self._batch(
            self.namespace,
            [
                "link set lo up",
                # No spanning tree, no snooping: packets pass from the first moment on.
                f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"address add {address} brd + dev {BRIDGE}",
                f"link set {BRIDGE} up",
            ],
        )
        for pi in pis:
            self._plug_in(pi)

    def _plug_in(self, pi: PiSpec) -> None:
        namespace, port, tap = self.of(pi.index), self.port(pi.index), self.tap(pi.index)
        run(["ip", "netns", "add", namespace])
        self._batch(
            self.namespace,
            [
                f"link add {port} type veth peer name {INTERFACE} address {pi.mac} netns {namespace}",
                f"link set {port} master {BRIDGE}",
                f"tuntap add {tap} mode tap",
                f"link set {tap} master {BRIDGE}",
            ],
        )
        self._batch(namespace, ["link set lo up", f"link set {INTERFACE} up"])

    def connect(self, index: int, wire: str) -> None:
        """Put the boot loader (`loader`), the emulator (`machine`) or nothing (`none`) on the Pi's cable.

        Both have the Pi's MAC, so only one may be there.
        """
        port, tap = self.port(index), self.tap(index)
        self._batch(
            self.namespace,
            [
                f"link set {port} {'up' if wire == 'loader' else 'down'}",
                f"link set {tap} {'up' if wire == 'machine' else 'down'}",
            ],
        )

    def _batch(self, namespace: str, commands: Iterable[str]) -> None:
        run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")

    def _no_tun_is_an_error(self) -> None:
        if not Path("/dev/net/tun").exists():
            raise UserError("there is no /dev/net/tun", fix="load it with: modprobe tun")

    def enter(self, argv: Sequence[str | Path], namespace: str = "") -> list[str]:
        """`argv` as a command inside the lab's namespace (or another one)."""
        return ["ip", "netns", "exec", namespace or self.namespace, *map(str, argv)]

    def processes(self) -> list[int]:
        """Every process that runs in one of the namespaces."""
        pids: list[int] = []
        for namespace in self.namespaces():
            try:
                pids += [int(word) for word in run(["ip", "netns", "pids", namespace]).stdout.split()]
            except CommandFailed:
                continue  # it went while we looked
        return sorted(set(pids) - {os.getpid()})

    def remove(self, grace: float = 10.0) -> None:
        """End what runs in the namespaces, then remove them. Nothing there: nothing to do."""
        _end(self.processes, grace)
        for namespace in self.namespaces():
            run(["ip", "netns", "delete", namespace])


def _end(processes: Callable[[], list[int]], grace: float) -> None:
    """SIGTERM, then SIGKILL for what still runs after `grace` seconds; new ones that appear meanwhile too."""
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while pids := processes():
        late = time.monotonic() > deadline
        for pid in pids:
            if late or pid not in asked:
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(pid)
        if time.monotonic() > deadline + grace:
            raise UserError(f"these processes of the lab don't end: {', '.join(map(str, pids))}")
        time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
