"""The boot loader's DHCP: packets to the byte, and which offers it takes (RFC 2131, RFC 2132, PXE 2.1 option 43)."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Interface

from kestrelpi.lab.identity import PiSpec, guid
from kestrelpi.lab.profiles import VENDOR_CLASS, DhcpTraits

BROADCAST_MAC = b"\xff" * 6
COOKIE = b"\x63\x82\x53\x63"
FIXED = struct.Struct("!4BI2H4s4s4s4s16s64s128s4s")
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
PAD, MASK, ROUTER, VENDOR, ADDRESS, TYPE, SERVER, WANTED, CLASS, TFTP_NAME, GUID, END = (
    0, 1, 3, 43, 50, 53, 54, 55, 60, 66, 97, 255,
)  # fmt: skip
ARCHITECTURE, UNDI = 93, 94


def discover(pi: PiSpec, traits: DhcpTraits, xid: int) -> bytes:
    """The BOOTP payload of a DISCOVER: no padding, options in the order of the captures."""
    return payload(
        pi,
        xid,
        (
            (TYPE, bytes([DISCOVER])),
            (WANTED, bytes(traits.requested)),
            (ARCHITECTURE, b"\0\0"),
            (UNDI, b"\1\2\1"),
            (GUID, guid(pi, traits.guid, traits.fourcc)),
            (CLASS, VENDOR_CLASS),
        ),
    )


def request(pi: PiSpec, traits: DhcpTraits, xid: int, address: IPv4Address, server: IPv4Address) -> bytes:
    """The BOOTP payload of a REQUEST. No capture shows its whole option list: this is the least that the logs imply."""
    options = [(TYPE, bytes([REQUEST])), (ADDRESS, address.packed), (SERVER, server.packed)]
    if traits.request_vendor_class:
        options.append((CLASS, VENDOR_CLASS))
    return payload(pi, xid, options)


def payload(pi: PiSpec, xid: int, options: Sequence[tuple[int, bytes]]) -> bytes:
    """BOOTP with `options`, from a client without an address and without the broadcast flag."""
    none = bytes(4)
    fixed = FIXED.pack(
        1, 1, 6, 0, xid, 0, 0, none, none, none, none, pi.mac_bytes.ljust(16, b"\0"), b"", b"", COOKIE
    )  # fmt: skip
    return fixed + b"".join(bytes([code, len(value)]) + value for code, value in options) + bytes([END])


def frame(pi: PiSpec, traits: DhcpTraits, data: bytes) -> bytes:
    """The broadcast Ethernet frame around a BOOTP payload."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    checksum = {} if traits.udp_checksum else {"chksum": 0}
    packet = (
        Ether(src=pi.mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255", ttl=traits.ttl, id=traits.ip_id)
        / UDP(sport=68, dport=67, **checksum)
        / data
    )
    return bytes(packet)


@dataclass(frozen=True)
class Reply:
    """What a server sent."""

    kind: int
    xid: int
    address: IPv4Address
    """yiaddr; 0.0.0.0 in an offer of a proxy."""
    next_server: IPv4Address
    file: str
    options: dict[int, bytes]

    @property
    def server(self) -> IPv4Address | None:
        return _address(self.options.get(SERVER))


def parse(raw: bytes, mac: bytes) -> Reply | None:
    """The DHCP reply to `mac` in an Ethernet frame; None when it is something else or malformed."""
    # Checksums are not looked at: a virtual link hands packets over before the sender's card would have filled them in.
    if len(raw) < 14 + 28 + FIXED.size or raw[12:14] != b"\x08\x00" or raw[:6] not in (mac, BROADCAST_MAC):
        return None
    header = (raw[14] & 15) * 4
    start = 14 + header + 8
    if raw[23] != 17 or raw[14 + header + 2 : 14 + header + 4] != b"\0D" or len(raw) < start + FIXED.size:
        return None
    length = int.from_bytes(raw[14 + header + 4 : 14 + header + 6], "big") - 8
    data = raw[start : start + length]
    if len(data) < FIXED.size:
        return None
    op, _, _, _, xid, _, _, _, yours, next_server, _, hardware, _, file, cookie = FIXED.unpack_from(data)
    if op != 2 or hardware[:6] != mac or cookie != COOKIE:
        return None
    options = parse_options(data[FIXED.size :])
    name = file.split(b"\0")[0].decode("ascii", "replace")
    kind = options.get(TYPE, b"\0")[0] if options.get(TYPE) else 0
    return Reply(kind, xid, IPv4Address(yours), IPv4Address(next_server), name, options)


def parse_options(data: bytes) -> dict[int, bytes]:
    """Code, length, value; a code that comes again is continued (RFC 3396). Stops at END or where it is cut off."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != END:
        if data[at] == PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            break
        value = data[at + 2 : at + 2 + data[at + 1]]
        found[data[at]] = found.get(data[at], b"") + value
        at += 2 + len(value)
    return found


def boot_server(traits: DhcpTraits, offer: Reply) -> tuple[IPv4Address | None, str]:
    """The TFTP server that an offer names, or None; and where it stood or why the offer is ignored."""
    vendor = offer.options.get(VENDOR, b"")
    name = offer.options.get(TFTP_NAME)
    quad = _dotted_quad(name)
    where = "option 66" + " with a NUL at its end" * (name or b"").endswith(b"\0")
    matched = traits.boot_string in vendor
    control = parse_options(vendor).get(6) == b"\3"
    if matched and (control or not traits.needs_discovery_control):
        return (quad, where) if quad is not None else (offer.server, "option 54")
    if quad is not None and traits.accepts_tftp_name:
        return quad, where
    if matched:
        return None, "option 43 lacks sub-option 6 = 3 (discovery control)"
    if name is not None and quad is None:
        return None, f"option 66 is {name!r}, not an address as text, and option 43 lacks {traits.boot_string!r}"
    return None, f"option 43 lacks {traits.boot_string!r}" + (", option 66 is missing" * traits.accepts_tftp_name)


@dataclass
class Offers:
    """The offers of one exchange: an address from one, the boot server from it or from a proxy's (seen on port 68)."""

    traits: DhcpTraits
    address: Reply | None = None
    boot: Reply | None = None
    server: IPv4Address | None = None
    server_from: str = ""
    ignored: list[str] = field(default_factory=list)

    def add(self, offer: Reply) -> str:
        """Take what an offer brings; says what that was."""
        server, why = boot_server(self.traits, offer)
        anywhere = IPv4Address(0)
        if offer.address != anywhere and (self.address is None or server is not None):
            self.address = offer
        if server is None:
            self.ignored.append(f"offer of {offer.address} from {offer.server}: {why}")
            return f"ignored: {why}"
        if self.boot is None or offer.address != anywhere:
            self.boot, self.server, self.server_from = offer, server, why
        return f"boot from {server} ({why})"

    @property
    def complete(self) -> bool:
        return self.address is not None and self.boot is not None


def interface_address(traits: DhcpTraits, offer: Reply) -> IPv4Interface:
    """The address to set: with the mask of option 1, or alone where the stage never asks for one."""
    mask = _address(offer.options.get(MASK))
    if traits.on_link or mask is None:
        return IPv4Interface((offer.address, 32))
    return IPv4Interface(f"{offer.address}/{mask}")


def router(traits: DhcpTraits, offer: Reply) -> IPv4Address | None:
    return None if traits.on_link else _address(offer.options.get(ROUTER, b"")[:4])


def _address(value: bytes | None) -> IPv4Address | None:
    return IPv4Address(value) if value is not None and len(value) == 4 else None


def _dotted_quad(value: bytes | None) -> IPv4Address | None:
    # dnsmasq ends the text with a NUL, and EEPROMs boot from dnsmasq; a Pi 3 may not like it (I, firmware#871).
    if value is None or not re.fullmatch(rb"[0-9]{1,3}(\.[0-9]{1,3}){3}\0?", value):
        return None
    try:
        return IPv4Address(value.rstrip(b"\0").decode())
    except AddressValueError:
        return None
