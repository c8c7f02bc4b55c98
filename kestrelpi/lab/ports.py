"""What the simulated boot loader needs of the world around it: a wire, UDP ports, a clock. Tests pass in their own."""

from __future__ import annotations

import select
import socket
import time
from ipaddress import IPv4Address, IPv4Interface
from typing import Protocol

from kestrelpi.run import run

ETH_P_IP = 0x0800


class Clock(Protocol):
    """Monotonic seconds."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class Wire(Protocol):
    """Whole Ethernet frames."""

    def send(self, frame: bytes) -> None: ...

    def receive(self, deadline: float) -> bytes | None:
        """The next IPv4 frame, or None when the clock has reached `deadline`."""

    def close(self) -> None: ...


class Port(Protocol):
    """One UDP port of ours."""

    def send(self, data: bytes, port: int) -> None:
        """To `port` of the server that the port was opened for."""

    def receive(self, deadline: float) -> tuple[bytes, int] | None:
        """The server's next packet and its source port, or None at `deadline`."""

    def close(self) -> None: ...


class Host(Protocol):
    """The Pi's network interface."""

    clock: Clock

    def wire(self) -> Wire: ...

    def configure(self, address: IPv4Interface, router: IPv4Address | None) -> None: ...

    def deconfigure(self) -> None: ...

    def port(self, number: int, server: IPv4Address) -> Port: ...


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class RawWire:
    """A packet socket: it sees offers to an address that the interface doesn't have yet."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self._socket.bind((interface, ETH_P_IP))

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def receive(self, deadline: float) -> bytes | None:
        return self._socket.recv(65535) if _readable(self._socket, deadline) else None

    def close(self) -> None:
        self._socket.close()


class UdpPort:
    def __init__(self, number: int, server: IPv4Address) -> None:
        self._server = str(server)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", number))

    def send(self, data: bytes, port: int) -> None:
        self._socket.sendto(data, (self._server, port))

    def receive(self, deadline: float) -> tuple[bytes, int] | None:
        while _readable(self._socket, deadline):
            data, (address, port) = self._socket.recvfrom(65535)
            if address == self._server:
                return data, port
        return None

    def close(self) -> None:
        self._socket.close()


def _readable(one: socket.socket, deadline: float) -> bool:
    return bool(select.select([one], [], [], max(0.0, deadline - time.monotonic()))[0])


class InterfaceHost:
    """An interface of the network namespace that this process runs in."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self.clock: Clock = RealClock()

    def wire(self) -> Wire:
        return RawWire(self.interface)

    def configure(self, address: IPv4Interface, router: IPv4Address | None) -> None:
        self.deconfigure()
        run(["ip", "address", "add", str(address), "brd", "+", "dev", self.interface])
        if address.network.prefixlen == 32:
            # No mask known: everybody counts as a neighbour.
            run(["ip", "route", "add", "default", "dev", self.interface])
        elif router is not None and router in address.network and router != address.ip:
            run(["ip", "route", "add", "default", "via", str(router), "dev", self.interface])

    def deconfigure(self) -> None:
        run(["ip", "address", "flush", "dev", self.interface])

    def port(self, number: int, server: IPv4Address) -> Port:
        return UdpPort(number, server)
