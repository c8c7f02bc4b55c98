"""Waiting until the services in the lab's network listen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError

LISTEN = "0A"
"""TCP state in /proc/net/tcp."""


def wait_for_services(process: run.Process, config: Config, log: Path, begin: int, timeout: float) -> None:
    """Until `process` listens on all of its ports, seen in its own network namespace.

    Raises UserError with the last lines that it wrote to `log` after byte `begin`, when it ends or `timeout` is over.
    """
    wanted = ports(config)
    deadline = time.monotonic() + timeout
    while missing := {name: port for name, port in wanted.items() if port not in listening(process.pid, name)}:
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "ended at once" if ended else f"does not listen for {_names(missing)} after {timeout:g} s"
            raise UserError(f"kestrelpi serve {what}", where=str(log), detail=_tail(log, begin))
        time.sleep(0.05)


def ports(config: Config) -> dict[str, int]:
    """The port of each service that a boot needs, by name."""
    services = config.services
    found = {"dhcp": services.dhcp.port, "tftp": services.tftp.port, "http": services.http.port}
    if not services.dhcp.listens:
        del found["dhcp"]
    if services.nfs.backend != "none":
        found["nfs"] = services.nfs.port
    return found


def listening(pid: int, service: str) -> set[int]:
    """Ports of the network namespace of process `pid`: UDP for dhcp and tftp, TCP for the others."""
    udp = service in ("dhcp", "tftp")
    found: set[int] = set()
    for name in ("udp",) if udp else ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for fields in map(str.split, lines):
            if udp or fields[3] == LISTEN:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def _names(missing: Mapping[str, int]) -> str:
    return ", ".join(f"{name} (port {port})" for name, port in missing.items())


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-run.TAIL :])
