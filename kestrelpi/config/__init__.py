"""The configuration: YAML in, frozen dataclasses out, errors with file:line and the line itself."""

from kestrelpi.config.load import load, parse
from kestrelpi.config.model import (
    Build,
    Config,
    Dhcp,
    Dns,
    Group,
    Http,
    Image,
    Network,
    Nfs,
    Power,
    Services,
    Tftp,
    Users,
)
from kestrelpi.config.values import AddressRange, Duration, parse_mac

__all__ = [
    "AddressRange",
    "Build",
    "Config",
    "Dhcp",
    "Dns",
    "Duration",
    "Group",
    "Http",
    "Image",
    "Network",
    "Nfs",
    "Power",
    "Services",
    "Tftp",
    "Users",
    "load",
    "parse",
    "parse_mac",
]
