"""The configuration as typed, frozen data. docs/reference/configuration.md is written from this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Literal

from kestrelpi.config.values import AddressRange, Duration

Model = Literal["3B", "3B+", "4B", "400", "CM4", "5", "500", "CM5"]
"""Raspberry Pis that boot from the network with arm64."""


@dataclass(frozen=True)
class Network:
    """The nodes' network, seen from the frontend."""

    interface: str = ""
    """The frontend's interface to the nodes; empty: the one that has `address`."""
    address: IPv4Interface = IPv4Interface("10.77.0.1/24")
    """The frontend's address on it, with the prefix length."""
    pool: AddressRange | None = None
    """Addresses for Pis that are not registered; default: the upper half of the network."""
    nodes: AddressRange | None = None
    """Addresses that registering hands out; default: the lower half, from the 11th address on."""
    gateway: IPv4Address | None = None
    """The nodes' default gateway; default: the frontend."""
    speed: int = 0
    """Mbit/s that the frontend's link to the nodes carries; 0: what its interface says."""
    domain: str = "cluster.internal"
    nameservers: tuple[IPv4Address, ...] = ()
    """Where our DNS forwards other names; default: the frontend's own resolvers."""


@dataclass(frozen=True)
class Dhcp:
    backend: Literal["builtin", "proxy", "dnsmasq", "none"] = "builtin"
    """proxy: another server gives the addresses, we tell Pis where their boot files are; dnsmasq: the one of this
    machine does both with files that we write; none: another one does, set up by hand."""
    dnsmasq_leases: Path = Path("/var/lib/misc/dnsmasq.leases")
    """Where dnsmasq keeps its leases (backend dnsmasq)."""
    port: int = 67
    lease: Duration = Duration(12 * 3600)
    unregistered: Literal["wait", "address", "ignore"] = "wait"
    """A Pi that isn't registered boots to the waiting initramfs, gets only an address, or nothing."""
    strangers: Literal["address", "ignore"] = "ignore"
    """Devices that are not Raspberry Pis get only an address, or nothing; never a boot file."""
    rom_delay: Duration = Duration(2)
    """Delay of the offer to a Pi 3B's ROM, which locks up on a quick answer."""
    extra_ouis: tuple[str, ...] = ()
    """More MAC prefixes that count as Raspberry Pis, such as `02:00:00`."""

    @property
    def listens(self) -> bool:
        """Whether `kestrelpi serve` answers on the DHCP port."""
        return self.backend in ("builtin", "proxy")

    @property
    def proxy(self) -> bool:
        """Whether the nodes' addresses are another server's choice, and can change."""
        return self.backend == "proxy"


@dataclass(frozen=True)
class Tftp:
    port: int = 69
    workers: int = 1


@dataclass(frozen=True)
class Dns:
    enabled: bool = True
    port: int = 53


@dataclass(frozen=True)
class Http:
    port: int = 8067


@dataclass(frozen=True)
class Nfs:
    backend: Literal["auto", "kernel", "ganesha", "none"] = "auto"
    """auto: the kernel's nfsd where there is one, else nfs-ganesha; none: somebody else exports it."""
    version: Literal["4.2", "4.1", "4.0", "3"] = "4.1"
    """Of 4.2 nfs-ganesha's READ_PLUS is older than RFC 7862: clients that use it (Linux 6.12 in trixie) can't read."""
    port: int = 2049


@dataclass(frozen=True)
class Services:
    """What `kestrelpi serve` runs."""

    listen: IPv4Address | None = None
    """The address to listen on; default: network.address."""
    admission: bool = True
    """Whether Pis wait their turn when more are switched on than the link carries."""
    dhcp: Dhcp = field(default_factory=Dhcp)
    tftp: Tftp = field(default_factory=Tftp)
    dns: Dns = field(default_factory=Dns)
    http: Http = field(default_factory=Http)
    nfs: Nfs = field(default_factory=Nfs)


RootKind = Literal["squashfs", "nfs"]


@dataclass(frozen=True)
class Kernel:
    """Where an image's kernel comes from."""

    package: str = "linux-image-arm64"
    suite: str = ""
    """Debian suite that has it; default: the image's. trixie-backports has what a Pi 5 needs."""


@dataclass(frozen=True)
class Image:
    """One root system."""

    suite: Literal["bookworm", "trixie"] | None = None
    """Debian release; default: the frontend's own."""
    modules: tuple[str, ...] = ("openmp",)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options of its modules: module → option → value."""
    packages: tuple[str, ...] = ()
    """More Debian packages."""
    timezone: str = "Etc/UTC"
    allow_secrets: tuple[str, ...] = ()
    """Files that may be in the image although they look like secrets: absolute paths, with * and ?."""
    kernel: Kernel = field(default_factory=Kernel)
    publish: Literal["built", "tested"] = "built"
    """When a new generation becomes the one that nodes boot: at once, or once it booted in the lab."""
    canary: str = ""
    """A group that gets new generations first; the others get them by `kestrelpi images publish`."""
    root: RootKind = "squashfs"
    """How nodes mount it: as compressed files from NFS, or as a folder over NFS."""


@dataclass(frozen=True)
class Group:
    """Nodes that share an image and options."""

    prefix: str = ""
    """Names are prefix1, prefix2, …; default: the group's name."""
    image: str = "default"
    cmdline: str = ""
    """More kernel options."""
    config_txt: tuple[str, ...] = ()
    """More lines of config.txt."""
    models: tuple[Model, ...] = ()
    """Which Pis are in it: a generation that one of them couldn't boot is refused."""


@dataclass(frozen=True)
class Snmp:
    """A PoE switch with the POWER-ETHERNET-MIB (RFC 3621), over net-snmp's snmpset."""

    host: str = ""
    conf: Path | None = None
    """A file in the form of snmp.conf(5) with version, community or user and passphrases; so they stand in no
    command line and not here."""
    oid: str = "1.3.6.1.2.1.105.1.1.1.3.1.{outlet}"
    """What is set for an outlet; default: pethPsePortAdminEnable of group 1."""
    on_value: int = 1
    off_value: int = 2


@dataclass(frozen=True)
class HttpPlug:
    """A plug or PDU that is switched by HTTP requests. URLs know {outlet} and {name}."""

    on_url: str = ""
    off_url: str = ""
    method: Literal["GET", "POST", "PUT"] = "GET"
    password: Path | None = None
    """A file with `user:password` for HTTP basic authentication."""


@dataclass(frozen=True)
class PowerCommand:
    """A program of the user; words know {outlet}, {name}, {mac} and {address}."""

    on_program: tuple[str, ...] = ()
    off_program: tuple[str, ...] = ()


@dataclass(frozen=True)
class Power:
    """How nodes are switched on and off. A Pi has no Wake-on-LAN and no BMC, so something outside must do it."""

    driver: Literal["none", "snmp-poe", "http", "command", "wol"] = "none"
    outlets: Mapping[str, str] = field(default_factory=dict)
    """Node → the port of the switch, or the outlet, that feeds it."""
    stagger: Duration = Duration(2)
    """Time between two switch-ons, so that a room's fuse and the boot services survive."""
    halt_time: Duration = Duration(60)
    """Time that a node has to shut down before its power is cut."""
    snmp: Snmp = field(default_factory=Snmp)
    http: HttpPlug = field(default_factory=HttpPlug)
    command: PowerCommand = field(default_factory=PowerCommand)


@dataclass(frozen=True)
class Users:
    """The users of the cluster."""

    homes: Path = Path("/home/cluster")
    """Where their homes lie, on the frontend and on every node. Nothing else may lie there: nodes can write to it."""
    server: str = ""
    """`host:/path` of an NFS server that has the homes; empty: the frontend."""
    mount_options: str = "rw,vers=4.2"
    """Of another NFS server."""
    first_uid: int = 10000


@dataclass(frozen=True)
class Build:
    mirror: str = ""
    """Debian mirror; default: the one that the frontend's own apt uses."""
    cache: Path | None = None
    """Package archives shared between images; default: /var/lib/kestrelpi/cache."""


@dataclass(frozen=True)
class Eeprom:
    """The boot loaders of a Pi 4 and later."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that they shall have (`nodes eeprom --apply`); those that aren't named stay as they are."""
    patience: Duration = Duration(300)
    """How long a node may take to come back after its boot loader was written."""


@dataclass(frozen=True)
class Config:
    """kestrelpi.yaml."""

    cluster: str = "kestrelpi"
    network: Network = field(default_factory=Network)
    services: Services = field(default_factory=Services)
    images: Mapping[str, Image] = field(default_factory=lambda: {"default": Image()})
    groups: Mapping[str, Group] = field(default_factory=lambda: {"rpi": Group()})
    build: Build = field(default_factory=Build)
    power: Power = field(default_factory=Power)
    eeprom: Eeprom = field(default_factory=Eeprom)
    users: Users = field(default_factory=Users)

    @property
    def listen(self) -> IPv4Address:
        """The address that our services listen on and nodes talk to."""
        return self.services.listen or self.network.address.ip

    @property
    def pool(self) -> AddressRange:
        """Addresses for Pis that are not registered."""
        network = self.network.address.network
        middle = int(network.network_address) + network.num_addresses // 2
        return self.network.pool or AddressRange(IPv4Address(middle), network.broadcast_address - 1)

    @property
    def node_addresses(self) -> AddressRange:
        """Addresses that registering hands out."""
        network = self.network.address.network
        middle = int(network.network_address) + network.num_addresses // 2
        first = min(network.network_address + 11, IPv4Address(middle - 1))
        return self.network.nodes or AddressRange(first, IPv4Address(middle - 1))

    def prefix(self, group: str) -> str:
        """What the names of this group's nodes start with."""
        return self.groups[group].prefix or group
