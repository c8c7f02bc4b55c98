"""Hearing spanning tree: a switch that speaks it may hold a Pi's port back for 30 s after link-up (IEEE 802.1D)."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable

log = logging.getLogger("kestrelpi")

ETH_P_802_2 = 0x0004
"""linux/if_ether.h: frames with a length and an LLC header in place of a type."""
SOL_PACKET = 263
ADD_MEMBERSHIP = 1
MULTICAST = 0
GROUP = bytes.fromhex("0180c2000000")
"""The group of bridges (IEEE 802.1D section 7.12.3)."""
CISCO_GROUP = bytes.fromhex("01000ccccccd")
"""PVST+, a tree for each VLAN."""
LLC = b"\x42\x42\x03"
CISCO_SNAP = b"\xaa\xaa\x03\x00\x00\x0c\x01\x0b"
VERSIONS = {0: "STP", 2: "RSTP", 3: "MSTP", 4: "SPB"}
TOPOLOGY_CHANGE = 0x80
"""A frame of this type has no bridge identifier."""
A_TURN = 16


def parse(raw: bytes) -> tuple[str, str] | None:
    """The sending bridge's MAC and the protocol of a frame; None: it is something else. Any bytes will do."""
    target, rest = raw[:6], raw[14:]
    if target == GROUP and rest.startswith(LLC):
        bpdu, name = rest[len(LLC) :], ""
    elif target == CISCO_GROUP and rest.startswith(CISCO_SNAP):
        bpdu, name = rest[len(CISCO_SNAP) :], "PVST+"
    else:
        return None
    if len(bpdu) < 4 or bpdu[:2] != b"\0\0":
        return None
    protocol = name or VERSIONS.get(bpdu[2], "STP")
    # identifier: protocol 2, version 1, type 1, flags 1, root 8, cost 4, bridge 8 = priority 2 and MAC 6
    bridge = bpdu[19:25] if bpdu[3] != TOPOLOGY_CHANGE and len(bpdu) >= 25 else raw[6:12]
    return bridge.hex(":"), protocol


def open_listener(interface: str) -> socket.socket | None:
    """A packet socket for spanning tree's frames on `interface`; None without the right to one."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        return None
    index = socket.if_nametoindex(interface)
    for group in (GROUP, CISCO_GROUP):
        # struct packet_mreq: the card must not drop what is sent to this group
        sock.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("iHH8s", index, MULTICAST, len(group), group))
    sock.bind((interface, ETH_P_802_2))
    return sock


def hear(sock: socket.socket, told: Callable[[str, str], None]) -> None:
    """Tell of the frames that wait: the bridge's MAC and the protocol."""
    for _ in range(A_TURN):
        try:
            raw = sock.recv(256)
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("spanning tree: %s", error)
            return
        found = parse(raw)
        if found:
            told(*found)
