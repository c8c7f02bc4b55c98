"""TFTP packets: requests, OACK and ERROR through tftpy's packet types, DATA and ACK as prepared bytes.

RFC 1350 (protocol), 2347 (options), 2348 (blksize), 2349 (tsize). tftpy's DATA and ACK classes are not used: they cost
14 µs a packet in objects and log calls, a prepared packet costs nothing, and a 14.6 MB boot has 10,000 of each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from tftpy.TftpPacketFactory import TftpPacketFactory
from tftpy.TftpPacketTypes import TftpPacketERR, TftpPacketOACK
from tftpy.TftpShared import TftpException

DEFAULT_BLOCK = 512
SMALLEST_BLOCK = 8
LARGEST_BLOCK = 1468
"""What fits into one Ethernet frame: 1500 - 20 (IP) - 8 (UDP) - 4 (TFTP). A Pi's loader can't reassemble fragments."""
LONGEST_REQUEST = 1024
"""Bytes; a Pi's longest is under 100."""

DATA_HEADER = 4
"""Bytes before the payload: opcode and block number."""
ACK_LENGTH = 4

FIRST_ACK, LAST_ACK = 4 << 16, (5 << 16) - 1
"""The ACK of block 0, and of the last one before numbers begin again at 0: their four bytes, read as a number."""
ERROR_OPCODE = b"\x00\x05"


class ErrorCode(IntEnum):
    """RFC 1350 section 5."""

    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS = 2
    ILLEGAL = 4


class Malformed(Exception):
    """These bytes are no request."""


@dataclass(frozen=True)
class Request:
    """A read or write request."""

    write: bool
    path: str
    mode: str
    """Lower case."""
    options: dict[str, str]
    """In the client's order, names in lower case (RFC 2347: they are case-insensitive)."""


@dataclass(frozen=True)
class Agreed:
    """What the two sides agreed on."""

    block: int
    """Payload bytes of each DATA packet but the last."""
    oack: bytes
    """The option acknowledgement, or empty when the client asked for nothing that we grant."""


def parse_request(packet: bytes) -> Request:
    """The RRQ or WRQ in `packet`; raises Malformed."""
    if len(packet) > LONGEST_REQUEST or packet[:2] not in (b"\x00\x01", b"\x00\x02"):
        raise Malformed("no request")
    try:
        parsed = TftpPacketFactory().parse(packet)
    except (TftpException, struct.error, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    options = {name.lower(): value for name, value in parsed.options.items()}
    if not parsed.filename:
        raise Malformed("no file name")
    return Request(parsed.opcode == 2, parsed.filename, parsed.mode, options)


def agree(options: dict[str, str], size: int) -> Agreed:
    """Answer the client's options for a file of `size` bytes.

    Only tsize and blksize are granted, and only when asked for; others (timeout, windowsize) are passed over in
    silence, which RFC 2347 defines as refusal. Without an OACK a Pi 4 ignores config.txt, so none is refused by ERROR.
    """
    granted: dict[str, str] = {}
    block = DEFAULT_BLOCK
    for name, value in options.items():
        if not (value.isascii() and value.isdigit()):
            continue
        if name == "tsize":
            granted["tsize"] = str(size)
        elif name == "blksize" and int(value[:10]) >= SMALLEST_BLOCK:
            block = min(int(value[:10]), LARGEST_BLOCK)
            granted["blksize"] = str(block)
    return Agreed(block, _oack(granted) if granted else b"")


def _oack(options: dict[str, str]) -> bytes:
    packet = TftpPacketOACK()
    packet.options = options
    return bytes(packet.encode().buffer)


def error(code: ErrorCode, text: str) -> bytes:
    """An ERROR packet; `text` is for people."""
    packet = TftpPacketERR()
    packet.errorcode = int(code)
    packet.errmsgs = {int(code): text.encode("ascii", "replace")}
    return bytes(packet.encode().buffer)


def error_text(packet: bytes) -> str:
    """What an ERROR packet says: `0 Early terminate`. Any bytes will do."""
    code = int.from_bytes(packet[2:4], "big")
    text = packet[4:].split(b"\0")[0]
    return f"{code} {''.join(chr(byte) if 32 <= byte < 127 else '?' for byte in text)}".strip()


def data(block: int, payload: bytes | memoryview) -> bytes:
    """The DATA packet number `block`; numbers go on at 0 after 65535, as every Pi since 2025-09 expects."""
    return b"".join((struct.pack("!HH", 3, block & 0xFFFF), payload))
