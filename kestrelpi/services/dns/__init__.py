"""DNS for the nodes: their names answered here, all others forwarded."""

from kestrelpi.services.dns.server import DnsServer

__all__ = ["DnsServer"]
