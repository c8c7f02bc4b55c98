"""What we answer ourselves: the nodes' names, the frontend's, and the reverse of both (RFC 1034, 1035, 2308)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Protocol

from dnslib import CLASS, EDNS0, NS, OPCODE, PTR, QTYPE, RCODE, RD, RR, SOA, A, DNSError, DNSHeader, DNSRecord

from kestrelpi.config import Config
from kestrelpi.nodes.node import Node

TTL = 60
"""Seconds: short, a node may be registered under another address at any time."""
OUR_PAYLOAD = 1232
"""Bytes that we tell EDNS clients to send at most: no fragments (dnsflagday.net/2020)."""
REVERSE = ".in-addr.arpa"


LONGEST_NAME, LONGEST_LABEL = 253, 63
"""RFC 1035 section 2.3.4; of the name as it is written, without its last dot."""


def parse(packet: bytes) -> DNSRecord:
    """A query as dnslib understands it. Raises DNSError, also for a name that dnslib takes and no reply can repeat."""
    query = DNSRecord.parse(packet)
    for one in query.questions:
        if len(one.qname) > LONGEST_NAME or any(len(label) > LONGEST_LABEL for label in one.qname.label):
            raise DNSError("a name that is too long")
    return query


class Registry(Protocol):
    """The nodes by name and by address."""

    @property
    def by_name(self) -> Mapping[str, Node]: ...

    @property
    def by_address(self) -> Mapping[IPv4Address, Node]: ...


@dataclass(frozen=True)
class Zone:
    """Our names: `<node>` and `<node>.<domain>`, the frontend as `frontend` and under the cluster's name."""

    domain: str
    network: IPv4Network
    server: IPv4Address
    frontend: tuple[str, ...]
    """The frontend's names; the first is the one that its address leads back to."""

    @classmethod
    def of(cls, config: Config) -> Zone:
        names = dict.fromkeys(("frontend", config.cluster.lower()))
        domain = config.network.domain.lower().strip(".")
        return cls(domain, config.network.address.network, config.listen, tuple(names))

    def answer(self, query: DNSRecord, registry: Registry) -> DNSRecord | None:
        """The reply to a query; None when the name isn't ours and must be forwarded."""
        if query.header.opcode != OPCODE.QUERY:
            return failure(query, RCODE.NOTIMP)
        if len(query.questions) != 1:
            return failure(query, RCODE.FORMERR)
        question = query.q
        if question.qclass not in (CLASS.IN, QTYPE.ANY):
            return failure(query, RCODE.REFUSED)
        name = str(question.qname).lower().rstrip(".")
        if name.endswith(REVERSE):
            return self._reverse(query, name, registry)
        host = self._host(name, question.qtype)
        return None if host is None else self._forward(query, host, registry)

    def _host(self, name: str, qtype: int) -> str | None:
        """The name without our domain, empty for the domain itself; None: not ours."""
        if name == self.domain:
            return ""
        if name.endswith("." + self.domain):
            return name[: -len(self.domain) - 1]
        # A bare name is one of ours or nobody's: `rpi9` must not be asked of the world.
        return name if name and "." not in name and qtype in (QTYPE.A, QTYPE.AAAA) else None

    def _forward(self, query: DNSRecord, host: str, registry: Registry) -> DNSRecord:
        qtype, reply = query.q.qtype, begin(query)
        if not host:
            if qtype in (QTYPE.SOA, QTYPE.ANY):
                self._add(reply, self._soa())
            if qtype in (QTYPE.NS, QTYPE.ANY):
                self._add(reply, NS(f"{self.frontend[0]}.{self.domain}"))
        else:
            address = self._address(host, registry)
            if address is None:
                reply.header.rcode = RCODE.NXDOMAIN
            elif qtype in (QTYPE.A, QTYPE.ANY):
                self._add(reply, A(str(address)))
        return self._finished(reply, self.domain)

    def _address(self, host: str, registry: Registry) -> IPv4Address | None:
        if host in self.frontend:
            return self.server
        node = registry.by_name.get(host)
        return node.address if node else None

    def _reverse(self, query: DNSRecord, name: str, registry: Registry) -> DNSRecord | None:
        try:
            address = IPv4Address(".".join(reversed(name.removesuffix(REVERSE).split("."))))
        except AddressValueError:
            return None
        if address != self.server and address not in self.network:
            return None
        reply = begin(query)
        node = registry.by_address.get(address)
        host = self.frontend[0] if address == self.server else node.name if node else ""
        if not host:
            reply.header.rcode = RCODE.NXDOMAIN
        elif query.q.qtype in (QTYPE.PTR, QTYPE.ANY):
            self._add(reply, PTR(f"{host}.{self.domain}"))
        return self._finished(reply, name)

    def _add(self, reply: DNSRecord, data: RD) -> None:
        reply.add_answer(RR(reply.q.qname, QTYPE.reverse[type(data).__name__], rdata=data, ttl=TTL))

    def _finished(self, reply: DNSRecord, zone: str) -> DNSRecord:
        """A reply without an answer carries the SOA, so that it is kept no longer than TTL (RFC 2308 section 3)."""
        if not reply.rr:
            reply.add_auth(RR(zone, QTYPE.SOA, rdata=self._soa(), ttl=TTL))
        return reply

    def _soa(self) -> SOA:
        own = f"{self.frontend[0]}.{self.domain}"
        return SOA(own, f"root.{own}", (1, 3600, 600, 86400, TTL))


def begin(query: DNSRecord) -> DNSRecord:
    """An empty authoritative reply, with EDNS when the query has it (RFC 6891 section 6.1.1)."""
    reply = query.reply(ra=1, aa=1)
    if any(_edns(query)):
        reply.add_ar(EDNS0(udp_len=OUR_PAYLOAD))
    return reply


def failure(query: DNSRecord, code: int) -> DNSRecord:
    """A reply that only says what went wrong."""
    header = DNSHeader(id=query.header.id, qr=1, ra=1, rd=query.header.rd, opcode=query.header.opcode, rcode=code)
    return DNSRecord(header, questions=query.questions[:1])


def payload_limit(query: DNSRecord) -> int:
    """How many bytes the client takes over UDP."""
    return max(512, *_edns(query), 0)


def _edns(query: DNSRecord) -> Iterator[int]:
    return (int(record.rclass) for record in query.ar if record.rtype == QTYPE.OPT)
