"""The leases file, in dnsmasq's format: `expiry mac address hostname client-id`, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.config import Config, parse_mac
from kestrelpi.files import write_whole
from kestrelpi.paths import Paths


@dataclass(frozen=True)
class Lease:
    """What the DHCP server promised a MAC."""

    expires: int
    """Unix time in seconds; 0: never."""
    mac: str
    address: IPv4Address
    hostname: str = ""
    client_id: str = ""

    def expired(self, now: float) -> bool:
        return self.expires != 0 and self.expires <= now


def parse(text: str) -> dict[str, Lease]:
    """The IPv4 leases of Ethernet clients in `text`, by MAC, in the file's order.

    Everything else that dnsmasq writes is passed over: its `duid` line, DHCPv6 leases, other hardware types. A MAC that
    stands there twice has the address of the lease that ends last.
    """
    found: dict[str, Lease] = {}
    for line in text.splitlines():
        lease = _lease(line.split())
        if lease and not _older(lease, found.get(lease.mac)):
            found[lease.mac] = lease
    return found


def _lease(words: list[str]) -> Lease | None:
    if len(words) < 3:
        return None
    try:
        expires, mac, address = int(words[0]), parse_mac(words[1].removeprefix("01-")), IPv4Address(words[2])
    except ValueError:
        return None
    hostname, client_id = ("" if word == "*" else word for word in (*words[3:5], "*", "*")[:2])
    return Lease(expires, mac, address, hostname, client_id)


def _older(lease: Lease, other: Lease | None) -> bool:
    """Whether `lease` ends before `other`, where 0 is never."""
    if other is None or other.expires == lease.expires:
        return False
    return other.expires == 0 or 0 < lease.expires < other.expires


def of_backend(paths: Paths, config: Config) -> Path:
    """The file of whoever gives the addresses: ours, or dnsmasq's."""
    dhcp = config.services.dhcp
    return dhcp.dnsmasq_leases if dhcp.backend == "dnsmasq" else paths.leases


def read(path: Path) -> dict[str, Lease]:
    """The leases in the file `path`, by MAC; none when there is no such file."""
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}


def write(path: Path, leases: Mapping[str, Lease] | Iterable[Lease]) -> None:
    """Replace the leases file."""
    some = leases.values() if isinstance(leases, Mapping) else leases
    write_whole(path, "".join(f"{_line(lease)}\n" for lease in some))


def _line(lease: Lease) -> str:
    return f"{lease.expires} {lease.mac} {lease.address} {lease.hostname or '*'} {lease.client_id or '*'}"
