"""The sockets of the DHCP server: broadcasts in, frames to clients without an address, and who else serves here."""

from __future__ import annotations

import ctypes
import json
import logging
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from kestrelpi.errors import UserError
from kestrelpi.run import run

log = logging.getLogger("kestrelpi")

CLIENT_PORT = 68
SERVER_PORT = 67
ETHERNET_IP = 0x0800
SO_ATTACH_FILTER = 26
"""asm-generic/socket.h"""
RECEIVE_BUFFER = 4 << 20
"""Bytes: a thousand Pis that are switched on together must all fit."""
SO_RCVBUFFORCE = 33


Source = tuple[str, int]
"""The address and port that a message came from."""


def interface_of(address: IPv4Address) -> str:
    """The name of the interface that has `address`; raises UserError when there is none."""
    for link in json.loads(run(["ip", "-j", "-4", "address", "show"]).stdout):
        if any(one.get("local") == str(address) for one in link.get("addr_info", ())):
            return str(link["ifname"]).partition("@")[0]
    raise UserError(
        f"no interface has the address {address}",
        where="network.address",
        fix="give it to the nodes' interface: ip address add, or change kestrelpi.yaml",
    )


def check_interface(name: str) -> None:
    """Raise UserError unless there is an interface called `name`."""
    known = [known for _, known in socket.if_nameindex()]
    if name not in known:
        raise UserError(
            f"there is no interface {name}",
            where="network.interface",
            fix=f"this machine has: {', '.join(known)}",
        )


def check_address(address: str) -> None:
    """Raise UserError unless `address` is one of this machine's: each service would only say that it can't bind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise UserError(
                f"{address} is not an address of this machine ({error.strerror})",
                where="network.address",
                fix="give it to the nodes' interface: ip address add, or change kestrelpi.yaml",
            ) from error


def open_server(address: str, port: int, interface: str) -> socket.socket:
    """The UDP socket that clients talk to, on one interface. Raises UserError when the port is taken or forbidden."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        fix = f"see who has it with: ss -lunp 'sport = :{port}'; end it, or set services.dhcp.port"
        if isinstance(error, PermissionError):
            fix = "run kestrelpi serve as root, or set services.dhcp.port above 1023"
        raise UserError(f"DHCP can't listen on {address}:{port}: {error.strerror}", fix=fix) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


def open_link(interface: str) -> socket.socket | None:
    """A packet socket on `interface`: sends frames, and hears other DHCP servers. None without the right to."""
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        return None
    program = foreign_filter()
    buffer = ctypes.create_string_buffer(program)
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, ctypes.addressof(buffer)))
    link.bind((interface, ETHERNET_IP))  # only now: before the filter was there everything would have come in
    return link


def foreign_filter() -> bytes:
    """A classic BPF program (bpf(4)): IPv4, UDP, not a later fragment, from port 67 to port 68."""
    load_half, load_byte, load_indexed, shift, equal, bits, done = 0x28, 0x30, 0x48, 0xB1, 0x15, 0x45, 0x06
    code = (
        (load_half, 0, 0, 12),
        (equal, 0, 9, ETHERNET_IP),
        (load_byte, 0, 0, 23),
        (equal, 0, 7, socket.IPPROTO_UDP),
        (load_half, 0, 0, 20),
        (bits, 5, 0, 0x1FFF),
        (shift, 0, 0, 14),
        (load_indexed, 0, 0, 14),
        (equal, 0, 2, SERVER_PORT),
        (load_indexed, 0, 0, 16),
        (equal, 1, 0, CLIENT_PORT),
        (done, 0, 0, 0),
        (done, 0, 0, 0xFFFF),
    )
    return b"".join(struct.pack("HBBI", *line) for line in code)


def arrived(sock: socket.socket, most: int) -> Iterator[tuple[bytes, Any]]:
    """What waits on a socket, and where each packet came from; at most `most` of them. Doesn't block."""
    for _ in range(most):
        try:
            yield sock.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError as error:  # an ICMP error for something sent earlier, or the link went down
            log.debug("dhcp: %s", error)


def destination(relay: IPv4Address, source: Source, port: int) -> Source:
    """Where a reply goes (RFC 2131 section 4.1); on another `port` than 67, as for tests, to where it came from."""
    usual = port == SERVER_PORT
    if int(relay):
        return str(relay), SERVER_PORT if usual else source[1]
    if source[0] != "0.0.0.0":
        return source
    return "255.255.255.255", CLIENT_PORT if usual else source[1]


def hardware_address(link: socket.socket) -> bytes:
    """The MAC of the interface that a packet socket is bound to."""
    address: bytes = link.getsockname()[4]
    return address


def frame(source_mac: bytes, mac: bytes, source: IPv4Address, to: IPv4Address, payload: bytes) -> bytes:
    """An Ethernet frame with a UDP datagram from port 67 to port 68 (RFC 768, 791): what no route can send,
    because the client that shall get it doesn't answer ARP for its new address yet."""
    udp_length = 8 + len(payload)
    pseudo = source.packed + to.packed + struct.pack("!2H", socket.IPPROTO_UDP, udp_length)
    udp = struct.pack("!4H", SERVER_PORT, CLIENT_PORT, udp_length, 0)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload) or 0xFFFF)
    ip = struct.pack("!2B3H2BH", 0x45, 0x10, 20 + udp_length, 0, 0x4000, 64, socket.IPPROTO_UDP, 0)
    ip += source.packed + to.packed
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return mac + source_mac + struct.pack("!H", ETHERNET_IP) + ip + udp + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_payload(raw: bytes) -> bytes:
    """The UDP payload of an IPv4 frame that the filter let through."""
    start = 14 + (raw[14] & 15) * 4 + 8
    return raw[start:]
