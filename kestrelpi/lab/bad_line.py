"""Boot loaders on a line that loses packets and delays them: 5 % and 20 ms in each direction.

The kernel may have no netem, so the clients' ends of the line lose and delay.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from kestrelpi.lab.ports import Clock, Port, RealClock, Wire
from kestrelpi.lab.profiles import PROFILES
from kestrelpi.lab.tftp import ACK, DATA, OACK, TftpClient, Transfer

LOSS, DELAY = 0.05, 0.02
TWICE = 0.3
"""The part of all acknowledgements that arrive twice."""
FILES = {"config.txt": 300, "start4.elf": 30_000, "kernel": 80_000}
TRAITS = (PROFILES["4"].tftp, PROFILES["4"].second_tftp, PROFILES["5"].tftp, PROFILES["3B"].second_tftp)
"""Those that acknowledge a block again; an EEPROM before February 2021 doesn't, and hangs when one is lost."""


@dataclass
class LossyHost:
    """A Pi on a bad line; counts what the server sends before any of it is lost."""

    port_of_server: int
    dice: random.Random
    clock: Clock = field(default_factory=RealClock)
    counted: Counter[str] = field(default_factory=Counter)

    def port(self, number: int, server: IPv4Address) -> Port:
        return LossyPort(self, str(server))

    def wire(self) -> Wire:
        raise AssertionError("files are all that is loaded here")

    def configure(self, address: IPv4Interface, router: IPv4Address | None) -> None:
        raise AssertionError("files are all that is loaded here")

    def deconfigure(self) -> None:
        raise AssertionError("files are all that is loaded here")


class LossyPort:
    """One UDP port, on loopback."""

    def __init__(self, host: LossyHost, server: str) -> None:
        self._host, self._server = host, server
        self._seen: set[bytes] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    def send(self, data: bytes, port: int) -> None:
        dice = self._host.dice
        acknowledges = data[1] == ACK
        twice = acknowledges and dice.random() < TWICE
        self._host.counted["twice"] += twice
        time.sleep(DELAY)
        for _ in range(1 + twice):
            if dice.random() < LOSS:
                self._host.counted["lost"] += 1
            else:
                self._socket.sendto(data, (self._server, self._host.port_of_server if port == 69 else port))

    def receive(self, deadline: float) -> tuple[bytes, int] | None:
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                packet, (_, port) = self._socket.recvfrom(65535)
            except TimeoutError:
                return None
            self._count(packet)
            if self._host.dice.random() >= LOSS:
                time.sleep(DELAY)
                return packet, port
            self._host.counted["lost"] += 1
        return None

    def _count(self, packet: bytes) -> None:
        if packet[1] in (DATA, OACK):
            self._host.counted["sent"] += 1
            self._host.counted["repeated"] += packet[:4] in self._seen
            self._seen.add(packet[:4])

    def close(self) -> None:
        self._socket.close()


def write_files(folder: Path) -> None:
    """What the Pis load."""
    for name, size in FILES.items():
        (folder / name).write_bytes(random.Random(size).randbytes(size))


def boot(number: int, port: int) -> tuple[LossyHost, dict[str, Transfer]]:
    """Load the files one after the other from `port` of loopback, as a Pi of some model does.

    `number` chooses the model, and what is lost.
    """
    host = LossyHost(port, random.Random(number))
    client = TftpClient(TRAITS[number % len(TRAITS)], host, IPv4Address("127.0.0.1"))
    return host, {name: client.get(name) for name in FILES}
