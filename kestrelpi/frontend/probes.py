"""Asking our own services as a node would: real packets to the address that nodes talk to."""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

TIMEOUT = 3.0
"""Seconds for an answer from this machine."""
NFS_PROGRAM = 100003
TFTP_ERROR = b"\x00\x05"
NOBODY_HAS_IT = "kestrelpi-doctor"
"""The name of a file that isn't served."""


def null_call(xid: int, version: int) -> bytes:
    """The NULL procedure of NFS over TCP: record mark, then an ONC RPC call (RFC 5531 sections 9, 11)."""
    call = struct.pack("!10I", xid, 0, 2, NFS_PROGRAM, version, 0, 0, 0, 0, 0)
    return struct.pack("!I", 0x80000000 | len(call)) + call


def null_reply(xid: int, record: bytes) -> str:
    """What is wrong with the reply (without its record mark); empty: nothing."""
    if len(record) < 12:
        return f"it answered {len(record)} bytes that are no reply"
    got, kind, status = struct.unpack_from("!3I", record)
    if (got, kind) != (xid, 1):
        return "it answered something else than a reply to our call"
    if status != 0:
        return "it denied the call"
    if len(record) < 24:
        return "its reply is cut off"
    length = struct.unpack_from("!I", record, 16)[0]
    accepted = struct.unpack_from("!I", record, 20 + length)[0] if len(record) >= 24 + length else 1
    return {0: "", 1: "it has no NFS", 2: "it doesn't have this version of NFS"}.get(accepted, f"status {accepted}")


def nfs(address: str, port: int, version: int) -> str:
    """Make a NULL call; what is wrong, or empty."""
    xid = int.from_bytes(os.urandom(4), "big")
    try:
        with socket.create_connection((address, port), TIMEOUT) as sock:
            sock.sendall(null_call(xid, version))
            length = struct.unpack("!I", _exactly(sock, 4))[0] & 0x7FFFFFFF
            return null_reply(xid, _exactly(sock, min(length, 4096)))
    except OSError as error:
        return _said(error)


def _exactly(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        if not piece:
            raise ConnectionError("it closed the connection")
        got += piece
    return got


def tftp(address: str, port: int) -> str:
    """Ask for a file that isn't there; the right answer is an ERROR. What is wrong, or empty."""
    request = b"\x00\x01" + NOBODY_HAS_IT.encode() + b"\0octet\0"
    try:
        answer = _datagram(address, port, request)
    except OSError as error:
        return _said(error)
    return "" if answer.startswith(TFTP_ERROR) else "it answered something else than `file not found`"


def dns(address: str, port: int, name: str) -> str:
    """Ask for the address of `name`; any answer to our question will do. What is wrong, or empty."""
    from dnslib import DNSRecord

    question = DNSRecord.question(name)
    try:
        answer = _datagram(address, port, question.pack())
    except OSError as error:
        return _said(error)
    return "" if answer[:2] == question.pack()[:2] else "it answered another question"


def _datagram(address: str, port: int, packet: bytes, tries: int = 2) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT / tries)
        for left in reversed(range(tries)):
            sock.sendto(packet, (address, port))
            try:
                return sock.recvfrom(2048)[0]
            except TimeoutError:
                if not left:
                    raise
    raise AssertionError("no try was made")


def web(address: str, port: int) -> str:
    """Ask what time it is. What is wrong, or empty."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/v1/time")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return _said(error)
    finally:
        connection.close()
    return "" if status == 200 else f"it answered with status {status}"


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


@dataclass(frozen=True)
class Listener:
    """A port that somebody listens on."""

    protocol: str
    address: str
    port: int
    program: str = ""


def listeners(text: str) -> list[Listener]:
    """What the output of `ss -H -lntup` says."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, _, port = fields[4].rpartition(":")
        if port.isdigit():
            program = re.search(r'\(\("([^"]+)",pid=(\d+)', line)
            said = f"{program[1]} (process {program[2]})" if program else ""
            found.append(Listener(fields[0], address.partition("%")[0].strip("[]"), int(port), said))
    return found


def in_the_way(listening: Iterable[Listener], protocol: str, address: str, port: int) -> Listener | None:
    """Who has a port that we want on `address`."""
    everywhere = ("0.0.0.0", "*", "::", address)
    wanted = (one for one in listening if (one.protocol, one.port) == (protocol, port))
    return next((one for one in wanted if one.address in everywhere), None)
