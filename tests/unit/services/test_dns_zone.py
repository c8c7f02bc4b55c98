"""DNS without sockets: what is ours, what must be asked of others, and bytes that are no query."""

from __future__ import annotations

import random
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord

from kestrelpi.config import parse
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dns.answers import REMEMBERED
from kestrelpi.services.dns.forward import answers, question, system_resolvers
from kestrelpi.services.dns.server import DnsServer, fitted
from kestrelpi.services.dns.zone import Zone

CONFIG = parse("network:\n  address: 10.77.0.1/22\n")
NODE = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.3.11"))
REGISTRY = Registry.of([NODE])


@dataclass
class FakeDirectory:
    registry: Registry


def ask(name: str, kind: str = "A") -> DNSRecord | None:
    return Zone.of(CONFIG).answer(DNSRecord.question(name, kind), REGISTRY)


@pytest.mark.parametrize(
    "name", ["example.org", "cluster.internal.example.org", "notcluster.internal", "4.3.2.1.in-addr.arpa", "", "."]
)
def test_other_names_are_asked_of_others(name: str) -> None:
    kind = "PTR" if "arpa" in name else "NS" if name in ("", ".") else "A"
    assert ask(name, kind) is None


def test_a_bare_unknown_name_is_not_asked_of_the_world() -> None:
    reply = ask("printer")
    assert reply is not None and reply.header.rcode == RCODE.NXDOMAIN


def test_the_reverse_of_a_network_that_ends_inside_a_byte() -> None:
    reply = ask("11.3.77.10.in-addr.arpa", "PTR")
    assert reply is not None and str(reply.rr[0].rdata) == "rpi1.cluster.internal."
    unknown = ask("12.3.77.10.in-addr.arpa", "PTR")
    assert unknown is not None and unknown.header.rcode == RCODE.NXDOMAIN
    assert ask("11.4.77.10.in-addr.arpa", "PTR") is None


def test_a_repeated_question_gets_the_same_answer_under_its_own_id() -> None:
    server = DnsServer(CONFIG, FakeDirectory(REGISTRY))
    first = DNSRecord.question("rpi1.cluster.internal")
    second = DNSRecord.question("rpi1.cluster.internal")
    replies = [server._local(bytes(query.pack()), "10.77.0.9") for query in (first, second)]
    assert replies[0] is not None and replies[1] is not None
    assert [reply[:2] for reply in replies if reply] == [bytes(query.pack())[:2] for query in (first, second)]
    assert replies[0][2:] == replies[1][2:]
    assert str(DNSRecord.parse(replies[1]).rr[0].rdata) == "10.77.3.11"


def test_only_the_nodes_network_may_ask_for_other_names() -> None:
    server = DnsServer(CONFIG, FakeDirectory(REGISTRY))
    query = bytes(DNSRecord.question("example.org").pack())
    assert server._local(query, "10.77.3.200") is None
    assert server._local(query, "127.0.0.1") is None
    refused = server._local(query, "198.51.100.7")
    assert refused and DNSRecord.parse(refused).header.rcode == RCODE.REFUSED


@pytest.mark.parametrize("labels", [(64,), (100, 3), (191,), (63, 63, 63, 62)])
def test_a_name_that_no_reply_can_repeat_is_malformed(labels: tuple[int, ...]) -> None:
    """dnslib takes a label's length byte for a length although 64 to 191 are none."""
    server = DnsServer(CONFIG, FakeDirectory(REGISTRY))
    name = b"".join(bytes([length]) + b"a" * length for length in labels)
    query = bytes(DNSRecord.question("rpi1").pack())[:12] + name + b"\0\0\1\0\1"
    assert server._local(query, "10.77.0.9") == server._local(query, "198.51.100.7") == b""
    assert server.counters["malformed"] == 2


def test_five_thousand_damaged_queries_raise_nothing() -> None:
    server = DnsServer(CONFIG, FakeDirectory(REGISTRY))
    dice = random.Random(20261122)
    seeds = []
    for name, kind in (("rpi1.cluster.internal", "A"), ("example.org", "TXT"), ("11.3.77.10.in-addr.arpa", "PTR")):
        query = DNSRecord.question(name, kind)
        query.add_ar(EDNS0(udp_len=4096))
        seeds.append(bytes(query.pack()))
    for _ in range(5_000):
        packet = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 5)):
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        damaged = bytes(packet[: dice.randint(0, len(packet))] if dice.random() < 0.3 else packet)
        server._local(damaged, "10.77.0.9")
        question(damaged)
    assert server.counters["malformed"] > 1_250
    assert len(server._known.exact) <= REMEMBERED


def test_a_reply_must_be_one_to_the_question() -> None:
    query = bytes(DNSRecord.question("Example.org").pack())
    reply = bytearray(DNSRecord.parse(query).reply().pack())
    assert answers(bytes(reply), query)
    assert not answers(query, query), "a query is no reply"
    assert not answers(bytes([reply[0] ^ 1]) + bytes(reply[1:]), query), "another id"
    assert not answers(bytes(reply).replace(b"xample", b"xamqle"), query), "another question"
    assert not answers(bytes(reply[:12]), query)


def test_a_reply_that_does_not_fit_is_cut_to_its_question() -> None:
    query = DNSRecord.question("rpi1.cluster.internal")
    whole = bytes(query.reply().pack())
    assert fitted(whole, 512) == whole
    cut = DNSRecord.parse(fitted(whole + bytes(600), 512))
    assert cut.header.tc == 1 and str(cut.q.qname) == "rpi1.cluster.internal." and cut.q.qtype == QTYPE.A


def test_the_frontends_own_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    own = IPv4Address("10.77.0.1")
    assert system_resolvers(file, own) == []
    file.write_text(
        "# c\nsearch x\nnameserver 10.77.0.1\nnameserver 192.0.2.53 \nnameserver fe80::1%eth0\nnameserver x\n"
    )
    assert system_resolvers(file, own) == [("192.0.2.53", 53), ("fe80::1%eth0", 53)]
