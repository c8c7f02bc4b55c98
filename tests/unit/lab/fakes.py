"""A wire, UDP ports and a clock without a network: time passes only while somebody waits."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from kestrelpi.lab import dhcp
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.ports import Clock, Port, Wire

SERVER = IPv4Address("10.99.0.1")
ADDRESS = IPv4Address("10.99.0.100")
PI3 = PiSpec(1, "3B", "b8:27:eb:6c:4c:16", "b66c4c16")
PI3_PLUS = PiSpec(1, "3B+", "b8:27:eb:6c:4c:16", "b66c4c16")
PI4 = PiSpec(1, "4", "e4:5f:01:09:02:f7", "91cdf03d")
"""The published capture's."""
PI5 = PiSpec(1, "5", "2c:cf:67:01:02:03", "7bf18f79")
MENU = bytes.fromhex("0601030a04005058450917000014") + b"Raspberry Pi Boot   " + b"\xff"
"""Option 43 to the byte: discovery control, prompt, boot menu with three spaces."""

Answer = Callable[[bytes], list[bytes]]
"""A DHCP server: BOOTP payload in, payloads out."""


@dataclass
class FakeClock:
    time: float = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class FakeWire:
    """Sends to `answer`, whose replies are there `delay` seconds later."""

    clock: FakeClock
    answer: Answer
    delay: float = 0.25
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    waiting: list[tuple[float, bytes]] = field(default_factory=list)

    def send(self, frame: bytes) -> None:
        self.sent.append((self.clock.time, frame))
        self.waiting += [(self.clock.time + self.delay, reply_frame(one)) for one in self.answer(frame[42:])]

    def receive(self, deadline: float) -> bytes | None:
        if self.waiting and self.waiting[0][0] <= deadline:
            at, frame = self.waiting.pop(0)
            self.clock.time = max(self.clock.time, at)
            return frame
        self.clock.time = max(self.clock.time, deadline)
        return None

    def close(self) -> None:
        return

    @property
    def payloads(self) -> list[bytes]:
        return [frame[42:] for _, frame in self.sent]


@dataclass
class FakeHost:
    """Serves `files` over TFTP and answers DHCP with `answer`."""

    answer: Answer = lambda _: []
    files: Mapping[str, bytes] = field(default_factory=dict)
    oack: bool = True
    clock: Clock = field(default_factory=FakeClock)
    configured: list[tuple[IPv4Interface, IPv4Address | None]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    wires: list[FakeWire] = field(default_factory=list)

    def wire(self) -> Wire:
        assert isinstance(self.clock, FakeClock)
        self.wires.append(FakeWire(self.clock, self.answer))
        return self.wires[-1]

    def configure(self, address: IPv4Interface, router: IPv4Address | None) -> None:
        self.configured.append((address, router))

    def deconfigure(self) -> None:
        return

    def port(self, number: int, server: IPv4Address) -> Port:
        assert server == SERVER
        self.numbers.append(number)
        return FakePort(self)


class FakePort:
    """A correct TFTP server, one transfer a port."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.packets: list[bytes] = []
        self.content = b""
        self.blksize = 512

    def send(self, data: bytes, port: int) -> None:
        operation, number = struct.unpack_from("!HH", data)
        if port == 69 and operation == 1:
            self.host.requests.append(data)
            self._begin(data[2:].split(b"\0"))
        elif operation == 4 and number * self.blksize <= len(self.content):
            block = self.content[number * self.blksize : (number + 1) * self.blksize]
            self.packets.append(struct.pack("!HH", 3, number + 1) + block)

    def _begin(self, words: list[bytes]) -> None:
        path = words[0].decode().replace("//", "/").lstrip("/")
        if path not in self.host.files:
            self.packets.append(struct.pack("!HH", 5, 1) + b"not here\0")
            return
        self.content = self.host.files[path]
        options = dict(zip(words[2::2], words[3::2], strict=False))
        if not self.host.oack or not options:
            self.packets.append(struct.pack("!HH", 3, 1) + self.content[:512])
            return
        self.blksize = int(options.get(b"blksize", b"512"))
        answer = {b"tsize": b"%d" % len(self.content), b"blksize": b"%d" % self.blksize}
        self.packets.append(b"\0\6" + b"".join(name + b"\0" + answer[name] + b"\0" for name in options))

    def receive(self, deadline: float) -> tuple[bytes, int] | None:
        assert isinstance(self.host.clock, FakeClock)
        if self.packets:
            return self.packets.pop(0), 51234
        self.host.clock.time = max(self.host.clock.time, deadline)
        return None

    def close(self) -> None:
        return


def reply(
    pi: PiSpec,
    kind: int,
    xid: int,
    options: Mapping[int, bytes],
    *,
    address: IPv4Address = ADDRESS,
    server: IPv4Address = SERVER,
) -> bytes:
    """A server's BOOTP payload."""
    none = bytes(4)
    fixed = dhcp.FIXED.pack(
        2, 1, 6, 0, xid, 0, 0, none, address.packed, server.packed, none, pi.mac_bytes.ljust(16, b"\0"), b"",
        b"bootcode.bin", dhcp.COOKIE,
    )  # fmt: skip
    every = {dhcp.TYPE: bytes([kind]), dhcp.SERVER: server.packed, dhcp.MASK: b"\xff\xff\xff\0"} | dict(options)
    return fixed + b"".join(bytes([code, len(value)]) + value for code, value in every.items()) + b"\xff"


def reply_frame(payload: bytes) -> bytes:
    """Broadcast Ethernet, IP and UDP headers as far as they are looked at."""
    udp = struct.pack("!4H", 67, 68, 8 + len(payload), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, SERVER.packed, b"\xff" * 4)
    return b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + ip + udp + payload


def server_with(pi: PiSpec, options: Mapping[int, bytes]) -> Answer:
    """A DHCP server that offers ADDRESS with `options` and acknowledges it."""

    def answer(payload: bytes) -> list[bytes]:
        xid = int.from_bytes(payload[4:8], "big")
        kind = dhcp.parse_options(payload[dhcp.FIXED.size :])[dhcp.TYPE][0]
        return [reply(pi, {dhcp.DISCOVER: dhcp.OFFER, dhcp.REQUEST: dhcp.ACK}[kind], xid, options)]

    return answer
