"""Reading kestrelpi.yaml, and what must hold between its values."""

from __future__ import annotations

import re
from pathlib import Path

from kestrelpi.config.model import Config
from kestrelpi.config.schema import Document, read
from kestrelpi.config.values import AddressRange
from kestrelpi.errors import ConfigError

NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
"""Names of images and groups: they become folder and host names (RFC 1123 section 2.1, in lower case)."""
SUITE = re.compile(r"[a-z][a-z0-9-]*")
SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
BOOT_ORDER = re.compile(r"0x[1-7ef]{1,8}")
"""Digits from the right: 1 card, 2 network, 3 rpiboot, 4 and 5 USB, 6 NVMe, 7 HTTP, e stop, f again (Raspberry Pi
documentation, "BOOT_ORDER")."""
A_BOARDS_OWN = ("MAC_ADDRESS", "MAC_ADDRESS_OTP", "CLIENT_IP", "SIGNED_BOOT")
"""Settings that must not be the same on every board, or can't be taken back."""
PORTS = (("dhcp", "port"), ("tftp", "port"), ("dns", "port"), ("http", "port"), ("nfs", "port"))


def load(path: Path) -> Config:
    """The configuration in the file `path`; raises ConfigError with file:line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no configuration", where=str(path), fix="make one with: kestrelpi reconfigure --frontend --init"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is not UTF-8", where=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse(text, str(path))


def parse(text: str, name: str = "kestrelpi.yaml") -> Config:
    """The configuration in `text`; `name` is the file's name for errors."""
    config, document = read(text, name, Config)
    _check_network(config, document)
    _check_ports(config, document)
    _check_names(config, document)
    _check_images(config, document)
    _check_eeprom(config, document)
    return config


def _check_network(config: Config, document: Document) -> None:
    network = config.network.address.network
    address = config.network.address.ip
    if network.prefixlen > 29:
        document.fail(("network", "address"), f"a /{network.prefixlen} has no room for nodes", "use /29 or wider")
    if address in (network.network_address, network.broadcast_address):
        document.fail(("network", "address"), f"{address} is the network's own or its broadcast address")
    ranges = (("pool", config.pool), ("nodes", config.node_addresses))
    for key, addresses in ranges:
        _check_range(addresses, key, config, document)
    if config.pool.overlaps(config.node_addresses):
        key = "pool" if config.network.pool else "nodes"
        document.fail(
            ("network", key),
            f"network.pool ({config.pool}) and network.nodes ({config.node_addresses}) overlap",
            "give them ranges that share no address",
        )


def _check_range(addresses: AddressRange, key: str, config: Config, document: Document) -> None:
    network, own = config.network.address.network, config.network.address.ip
    for end in (addresses.first, addresses.last):
        if end not in network or end in (network.network_address, network.broadcast_address):
            document.fail(("network", key), f"{end} is no host address of {network}")
    if own in addresses:
        document.fail(("network", key), f"network.{key} ({addresses}) holds the frontend's own address {own}")


def _check_ports(config: Config, document: Document) -> None:
    for service, key in PORTS:
        port = getattr(getattr(config.services, service), key)
        if not 1 <= port <= 65535:
            document.fail(("services", service, key), f"port {port} is not between 1 and 65535")
    if config.services.http.port == config.services.dns.port and config.services.dns.enabled:
        document.fail(("services", "http", "port"), "http and dns share a port", "give them different ports")
    if config.services.tftp.workers < 1:
        document.fail(("services", "tftp", "workers"), "there must be at least one worker")


def _check_images(config: Config, document: Document) -> None:
    for name, image in config.images.items():
        key = ("images", name, "kernel", "suite")
        if image.kernel.suite and not SUITE.fullmatch(image.kernel.suite):
            document.fail(key, f"{image.kernel.suite!r} is no Debian suite", "write it as trixie-backports")
        if not image.canary:
            continue
        mine = [group for group, one in config.groups.items() if one.image == name]
        if image.canary not in mine:
            known = ", ".join(mine) or "none"
            document.fail(("images", name, "canary"), f"no group {image.canary!r} boots {name}", f"groups: {known}")


def _check_names(config: Config, document: Document) -> None:
    for kind, names in (("images", config.images), ("groups", config.groups)):
        for name in names:
            if not NAME.fullmatch(name):
                document.fail((kind, name), f"{name!r} can't be a name", "use lower-case letters, digits and '-'")
    prefixes: dict[str, str] = {}
    for name, group in config.groups.items():
        if group.image not in config.images:
            known = ", ".join(config.images) or "none"
            document.fail(("groups", name, "image"), f"there is no image {group.image!r}", f"images: {known}")
        prefix = config.prefix(name)
        if not NAME.fullmatch(prefix + "1"):
            document.fail(("groups", name, "prefix"), f"{prefix!r} can't start a host name")
        if prefix in prefixes:
            document.fail(("groups", name), f"the groups {prefixes[prefix]} and {name} share the prefix {prefix!r}")
        prefixes[prefix] = name


def _check_eeprom(config: Config, document: Document) -> None:
    for key, value in config.eeprom.settings.items():
        where = ("eeprom", "settings", key)
        if key in A_BOARDS_OWN:
            document.fail(where, f"{key} is a board's own", "set it by hand, on that board: rpi-eeprom-config --edit")
        if not SETTING.fullmatch(key):
            document.fail(where, f"{key!r} is no setting of a boot loader", "write it as in BOOT_ORDER")
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            document.fail(where, f"{value!r} can't be a value")
        if key == "BOOT_ORDER" and (not BOOT_ORDER.fullmatch(value) or "2" not in value):
            fix = 'digits from the right: 1 card, 2 network, f again: "0xf21" tries a card, then the network'
            document.fail(where, f"BOOT_ORDER {value} would not boot from the network", fix)
        if key == "TFTP_PREFIX" and value not in ("0", "2"):
            document.fail(where, f"TFTP_PREFIX {value}: kestrelpi serves by serial (0) and by MAC (2)")
