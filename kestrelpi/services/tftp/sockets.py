"""The sockets of the TFTP server."""

from __future__ import annotations

import resource
import socket
import struct

from kestrelpi.errors import UserError

RECEIVE_BUFFER = 4 << 20
"""Bytes: a thousand Pis that ask at the same moment must all fit."""
SO_RCVBUFFORCE = 33
"""asm-generic/socket.h: a receive buffer beyond net.core.rmem_max, for root."""
IP_PKTINFO = 8
"""linux/in.h; Python has no name for it before 3.14."""

Address = tuple[str, int]


def open_listener(listen: str, port: int, shared: bool = False) -> socket.socket:
    """A bound UDP socket; `shared`: several processes listen on it. Raises UserError when the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((listen, port))
    except OSError as problem:
        sock.close()
        fix = f"see who has it with: ss -lunp 'sport = :{port}'; end it, or set services.tftp.port"
        raise UserError(f"TFTP can't listen on {listen}:{port}: {problem.strerror}", fix=fix) from problem
    enlarge(sock)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return sock


def enlarge(sock: socket.socket) -> None:
    """Give a socket RECEIVE_BUFFER, or what this user may have of it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def local_address(ancillary: list[tuple[int, int, bytes]]) -> str:
    """Which of our addresses the packet was sent to, from IP_PKTINFO (ip(7): index, local address, header address)."""
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return socket.inet_ntoa(struct.unpack("=I4s4s", value[:12])[1])
    return "0.0.0.0"
