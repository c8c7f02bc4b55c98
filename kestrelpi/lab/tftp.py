"""The boot loader's TFTP client: lock-step reads (RFC 1350) with tsize and blksize (RFC 2347, 2348, 2349)."""

from __future__ import annotations

import struct
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address

from kestrelpi.lab.ports import Host, Port
from kestrelpi.lab.profiles import TftpTraits

TFTP_PORT = 69
RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
NOT_FOUND = 1
LAST_BLOCK = 0xFFFF


class Result(StrEnum):
    """How a request ended."""

    GOT = "got"
    PROBED = "probed"
    """It is there; ended by us with "Early terminate"."""
    MISSING = "missing"
    REFUSED = "refused"
    """Another error than "file not found"."""
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    """Cut off after block 65535: old firmware doesn't notice."""


@dataclass
class Transfer:
    """One request and what came of it."""

    path: str
    """As it was asked for."""
    result: Result = Result.TIMEOUT
    blocks: list[bytes] = field(default_factory=list)
    size: int = 0
    """Bytes received; for a probe what tsize said."""
    seconds: float = 0.0
    blksize: int = 512
    acknowledged: bool = False
    """Whether the server sent an OACK."""
    retries: int = 0
    """Requests that were repeated."""
    duplicates: int = 0
    """DATA that came again."""
    error: str = ""

    @property
    def content(self) -> bytes:
        return b"".join(self.blocks)


class TftpClient:
    """Reads files one after the other from one server."""

    def __init__(self, traits: TftpTraits, host: Host, server: IPv4Address) -> None:
        self.traits, self.host, self.server = traits, host, server
        self._port = traits.first_port

    def get(self, path: str) -> Transfer:
        """Read the whole file."""
        return self._fetch(path, probe=False)

    def probe(self, path: str) -> Transfer:
        """See whether the file is there: end the transfer after the server's first packet."""
        return self._fetch(path, probe=True)

    def request(self, path: str) -> bytes:
        """The read request's bytes."""
        words = [path, "octet"]
        if self.traits.tsize:
            words += ["tsize", "0"]
        if self.traits.blksize:
            words += ["blksize", str(self.traits.blksize)]
        return struct.pack("!H", RRQ) + b"".join(word.encode() + b"\0" for word in words)

    def _fetch(self, path: str, probe: bool) -> Transfer:
        transfer = Transfer(path)
        begun = self.host.clock.now()
        with closing(self.host.port(self._next_port(), self.server)) as port:
            reader = _Reader(self.traits, port, transfer, probe)
            self._converse(reader, port, begun + self.traits.file_timeout)
        transfer.seconds = self.host.clock.now() - begun
        if not probe:
            transfer.size = sum(map(len, transfer.blocks))
        return transfer

    def _converse(self, reader: _Reader, port: Port, deadline: float) -> None:
        request = self.request(reader.transfer.path)
        port.send(request, TFTP_PORT)
        repeat = self.host.clock.now() + self.traits.retry
        while True:
            # Only the request is repeated by us; once the server answers, its timer alone mends what is lost.
            until = min(repeat, deadline) if reader.peer is None else deadline
            packet = port.receive(until)
            if packet is not None:
                if reader.take(*packet):
                    return
            elif self.host.clock.now() >= deadline:
                return
            else:
                port.send(request, TFTP_PORT)
                reader.transfer.retries += 1
                repeat = self.host.clock.now() + self.traits.retry

    def _next_port(self) -> int:
        self._port += 1
        return self._port - 1


class _Reader:
    """The state of one transfer after the request."""

    def __init__(self, traits: TftpTraits, port: Port, transfer: Transfer, probe: bool) -> None:
        self.traits, self.port, self.transfer, self.probe = traits, port, transfer, probe
        self.peer: int | None = None
        self.expected = 1

    def take(self, packet: bytes, sender: int) -> bool:
        """Handle one packet; True at the end."""
        if len(packet) < 4 or self.peer not in (None, sender):
            return False
        operation, number = struct.unpack_from("!HH", packet)
        if operation not in (DATA, ERROR, OACK):
            return False
        self.peer = sender
        if operation == ERROR:
            return self._refused(number, packet[4:])
        if operation == OACK and not self._options(packet[2:]):
            return False
        if self.probe:
            self._send(struct.pack("!HH", ERROR, 0) + b"Early terminate\0")
            self.transfer.result = Result.PROBED
            return True
        if operation == OACK:
            if self.expected == 1:
                self._ack(0)
            return False
        return self._data(number, packet[4:])

    def _refused(self, code: int, text: bytes) -> bool:
        self.transfer.result = Result.MISSING if code == NOT_FOUND else Result.REFUSED
        self.transfer.error = f"error {code}: {text.split(bytes(1))[0].decode('ascii', 'replace')}"
        return True

    def _options(self, data: bytes) -> bool:
        words = data.split(b"\0")
        options = {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=False)}
        blksize = options.get(b"blksize", b"512")
        if not blksize.isdigit() or not 8 <= int(blksize) <= (self.traits.blksize or 512):
            self._send(struct.pack("!HH", ERROR, 8) + b"Bad blksize\0")
            return False
        self.transfer.acknowledged = True
        self.transfer.blksize = int(blksize)
        if options.get(b"tsize", b"").isdigit():
            self.transfer.size = int(options[b"tsize"])
        return True

    def _data(self, number: int, data: bytes) -> bool:
        transfer = self.transfer
        if number == self.expected & LAST_BLOCK:
            transfer.blocks.append(data)
            self._ack(number)
            self.expected += 1
            if len(data) < transfer.blksize:
                transfer.result = Result.GOT
                return True
            if number == LAST_BLOCK and not self.traits.rolls_over:
                transfer.result = Result.TRUNCATED
                return True
        elif number == (self.expected - 1) & LAST_BLOCK:
            transfer.duplicates += 1
            if self.traits.reacks:
                self._ack(number)
        return False

    def _ack(self, number: int) -> None:
        self._send(struct.pack("!HH", ACK, number))

    def _send(self, packet: bytes) -> None:
        assert self.peer is not None
        self.port.send(packet, self.peer)
