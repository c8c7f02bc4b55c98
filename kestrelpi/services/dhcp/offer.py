"""What stands in a reply: pure functions from a request and what was decided to bytes.

One offer for every model, the union of what each of them needs: the Pi 3B's ROM wants option 43 with the boot string
and three spaces behind it, the EEPROM of Pi 4 and 5 that string or option 66 as text, some of them discovery control 3
and a boot file that isn't empty; all get all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from kestrelpi.config import Config
from kestrelpi.services.dhcp.packet import NOWHERE, Kind, Message, Option, Reply, build

BOOT_FILE = b"bootcode.bin"
"""Its content is ignored by the EEPROMs, but it must not be empty for a Pi 5; the ROM asks for this one anyway."""
BOOT_STRING = b"Raspberry Pi Boot   "
"""The Pi 3B's ROM finds the string only with three spaces behind it (fixed in the 3B+, which doesn't mind)."""
VENDOR_CLASS = b"PXEClient"


def vendor_options() -> bytes:
    """Option 43 (PXE 2.1 section 2.2.3): discovery control 3, menu prompt "PXE" without delay, a menu of one entry."""
    prompt = b"\0PXE"
    menu = b"\0\0" + bytes([len(BOOT_STRING)]) + BOOT_STRING
    return b"\x06\x01\x03" + bytes([10, len(prompt)]) + prompt + bytes([9, len(menu)]) + menu + b"\xff"


VENDOR_OPTIONS = vendor_options()


@dataclass(frozen=True)
class Site:
    """What is the same in every reply."""

    server: IPv4Address
    """Our address: server identifier, TFTP server."""
    network: IPv4Network
    gateway: IPv4Address
    nameservers: tuple[IPv4Address, ...]
    domain: str
    lease: int
    """Seconds."""

    @cached_property
    def options(self) -> Sequence[Option]:
        """What every client is told of the network."""
        options: list[Option] = [
            ("subnet_mask", str(self.network.netmask)),
            ("router", str(self.gateway)),
        ]
        if self.nameservers:
            options.append(("name_server", *map(str, self.nameservers)))  # type: ignore[arg-type]
        options.append(("domain", self.domain.encode("ascii")))
        return options


def site(config: Config) -> Site:
    """What every reply says, from the configuration."""
    network = config.network
    own_dns = (config.listen,) if config.services.dns.enabled else network.nameservers
    gateway = network.gateway or network.address.ip
    return Site(
        config.listen, network.address.network, gateway, own_dns, network.domain, int(config.services.dhcp.lease)
    )


@dataclass(frozen=True)
class Grant:
    """An address for a client."""

    address: IPv4Address
    boot: bool = False
    """With what a boot loader needs."""
    hostname: str = ""


def grant(site: Site, kind: Kind, asked: Message, given: Grant) -> bytes:
    """The OFFER or ACK that grants an address."""
    options: list[Option] = [
        ("message-type", int(kind)),
        ("server_id", str(site.server)),
        ("lease_time", site.lease),
        *site.options,
    ]
    if given.hostname and not given.boot:
        options.append(("hostname", given.hostname.encode("ascii")))
    if given.boot:
        options += [
            ("vendor_class_id", VENDOR_CLASS),
            ("tftp_server_name", str(site.server).encode("ascii")),  # text, without a NUL: binary is rejected
            ("vendor_specific", VENDOR_OPTIONS),
        ]
        if asked.guid:
            options.append(("pxe_client_machine_identifier", asked.guid))
    file = BOOT_FILE if given.boot else b""
    return build(Reply(asked, given.address, site.server if given.boot else NOWHERE, file, options + _relay(asked)))


def proxy(site: Site, asked: Message) -> bytes:
    """An OFFER of boot files without an address, which another server offers: the loader merges both (PXE 2.1 section
    2.2.1). As the published ones that Pis booted from: options 53, 54, 60, 97, 43; and 66, which comes before 54."""
    options: list[Option] = [
        ("message-type", int(Kind.OFFER)),
        ("server_id", str(site.server)),
        ("vendor_class_id", VENDOR_CLASS),
        ("tftp_server_name", str(site.server).encode("ascii")),
    ]
    if asked.guid:
        options.append(("pxe_client_machine_identifier", asked.guid))
    options.append(("vendor_specific", VENDOR_OPTIONS))
    return build(Reply(asked, NOWHERE, site.server, BOOT_FILE, options + _relay(asked)))


def inform(site: Site, asked: Message) -> bytes:
    """The ACK of an INFORM: no address and no lease (RFC 2131 section 4.3.5)."""
    options: list[Option] = [("message-type", int(Kind.ACK)), ("server_id", str(site.server)), *site.options]
    return build(Reply(asked, NOWHERE, NOWHERE, b"", options + _relay(asked)))


def nak(site: Site, asked: Message, why: str) -> bytes:
    """The refusal of a REQUEST: the client must begin anew."""
    options: list[Option] = [
        ("message-type", int(Kind.NAK)),
        ("server_id", str(site.server)),
        ("error_message", why.encode("ascii", "replace")),
    ]
    return build(Reply(asked, NOWHERE, NOWHERE, b"", options + _relay(asked)))


def _relay(asked: Message) -> list[Option]:
    """Option 82 goes back to the relay as it came, last (RFC 3046 section 2.2)."""
    agent = asked.text("relay_agent_information")
    return [("relay_agent_information", agent)] if agent else []
