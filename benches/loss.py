"""TFTP on a bad line beside dnsmasq and tftpd-hpa: 5 % of all packets are lost, each takes 20 ms, both ways.

The clients' ends of the line lose and delay, since a kernel may have no netem. 30 % of the acknowledgements are sent
twice: a server that answers both with DATA sends the rest of the file twice (RFC 1123 section 4.2.3.1).
`benches/boot_services.py` runs it.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tftp

CLIENTS = 256
LOSS, DELAY, TWICE = 0.05, 0.02, 0.3
FILE, SIZE, BLOCK = "vmlinuz", 146_000, 1468
ACK, DATA, OACK = 4, 3, 6
LONGEST = 180.0
"""Seconds after which a client has failed."""


@dataclass
class Heard:
    """What the clients' ends of the line saw of the server's packets, before any was lost."""

    data: int = 0
    again: int = 0


@dataclass
class BadLine(asyncio.DatagramProtocol):
    """One client that fetches FILE in lock step, and its end of the line."""

    dice: random.Random
    heard: Heard
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    block: int = 0
    got: int = 0
    last: tuple[bytes, tuple[str, int]] = (b"", ("", 0))
    seen: set[bytes] = field(default_factory=set)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        request = b"\0\1" + FILE.encode() + b"\0octet\0tsize\x000\0blksize\x00%d\0" % BLOCK
        self.say(request, ("127.0.0.1", tftp.PORT))

    def say(self, packet: bytes, peer: tuple[str, int]) -> None:
        """Send it, or lose it; and again as long as nothing new comes."""
        self.last = packet, peer
        loop = asyncio.get_running_loop()
        for _ in range(1 + (packet[1] == ACK and self.dice.random() < TWICE)):
            if self.dice.random() >= LOSS:
                loop.call_later(DELAY, self.transport.sendto, packet, peer)
        loop.call_later(tftp.REPEAT, self.repeat, packet)

    def repeat(self, packet: bytes) -> None:
        if packet == self.last[0] and not self.done.done():
            self.say(*self.last)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[1] == DATA:
            self.heard.data += 1
            self.heard.again += data[:4] in self.seen
            self.seen.add(data[:4])
        if self.dice.random() >= LOSS:
            asyncio.get_running_loop().call_later(DELAY, self.take, data, addr)

    def take(self, data: bytes, peer: tuple[str, int]) -> None:
        """A packet that was not lost."""
        if self.done.done():
            return
        if data[1] == OACK and self.block == 0:
            self.say(b"\0\4\0\0", peer)
        elif data[1] == DATA and data[2:4] == struct.pack("!H", self.block + 1):
            self.block += 1
            self.got += len(data) - 4
            self.say(b"\0\4" + data[2:4], peer)
            if len(data) < BLOCK + 4:
                self.done.set_result(self.got == SIZE)
        elif data[1] not in (DATA, OACK):
            self.done.set_result(False)


async def fetch(number: int, heard: Heard) -> float | None:
    """Seconds of one client; None when it failed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    transport, line = await loop.create_datagram_endpoint(
        lambda: BadLine(random.Random(number), heard), local_addr=("127.0.0.1", 0)
    )
    try:
        whole = await asyncio.wait_for(line.done, LONGEST)
        await asyncio.sleep(DELAY * 2)  # the last acknowledgement is under way
    except TimeoutError:
        whole = False
    finally:
        transport.close()
    return loop.time() - began if whole else None


async def fetch_all(heard: Heard) -> list[float | None]:
    return await asyncio.gather(*(fetch(number, heard) for number in range(CLIENTS)))


def measure(server: str) -> dict[str, float]:
    """One server: seconds to the last client and to the median one, those that failed, percent of DATA sent again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / FILE).write_bytes(os.urandom(SIZE))
        heard = Heard()
        with tftp.serving(server, folder, 1):
            found = asyncio.run(fetch_all(heard))
    seconds = [one for one in found if one is not None]
    return {
        "failed": len(found) - len(seconds),
        "seconds to the last": max(seconds, default=0.0),
        "seconds to the median one": statistics.median(seconds or [0.0]),
        "DATA sent more than once, %": 100 * heard.again / max(heard.data, 1),
    }
