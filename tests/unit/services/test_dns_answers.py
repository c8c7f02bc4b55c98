"""Replies that are sent again: never another than the one that was worked out for this very question."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from dnslib import EDNS0, DNSRecord

from kestrelpi.config import parse
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dns import answers
from kestrelpi.services.dns.answers import Answers, name_end
from kestrelpi.services.dns.zone import Zone

ZONE = Zone.of(parse("network:\n  address: 10.77.0.1/22\n"))
REGISTRY = Registry.of([Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.3.11"))])


def worked_out(query: bytes) -> bytes:
    """What dnslib and the zone say."""
    reply = ZONE.answer(DNSRecord.parse(query), REGISTRY)
    assert reply is not None
    return bytes(reply.pack())


def question(name: str, kind: str = "A", edns: bool = False) -> bytes:
    query = DNSRecord.question(name, kind)
    if edns:
        query.add_ar(EDNS0(udp_len=1400))
    return bytes(query.pack())


QUESTIONS = [
    ("rpi1.cluster.internal", "A"),
    ("rpi1.cluster.internal", "AAAA"),
    ("rpi1", "A"),
    ("gone.cluster.internal", "A"),
    ("cluster.internal", "SOA"),
    ("11.3.77.10.in-addr.arpa", "PTR"),
]


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize(("name", "kind"), QUESTIONS)
def test_a_remembered_reply_is_the_one_that_was_worked_out(name: str, kind: str, edns: bool) -> None:
    known = Answers()
    first, again = question(name, kind, edns), question(name, kind, edns)
    known.remember(first, worked_out(first))
    assert again[:2] + known.exact[again[2:]] == worked_out(again)


@pytest.mark.parametrize(("name", "kind"), QUESTIONS)
def test_the_letters_of_the_question_come_back_as_they_were_spelled(name: str, kind: str) -> None:
    known = Answers()
    known.remember(question(name, kind), worked_out(question(name, kind)))
    odd = question("".join(one.upper() if at % 2 else one for at, one in enumerate(name)), kind)
    reply = known.spelled(odd)
    assert odd[2:] not in known.exact, "random spellings would fill the memory"
    assert reply is not None and reply[:2] == odd[:2] and reply[12 : name_end(odd)] == odd[12 : name_end(odd)]
    said, wanted = DNSRecord.parse(reply), DNSRecord.parse(worked_out(odd))
    assert said.header.rcode == wanted.header.rcode and said.header.aa == wanted.header.aa
    assert [str(one.rdata).lower() for one in said.rr] == [str(one.rdata).lower() for one in wanted.rr]
    assert [str(one.rname).lower() for one in said.rr] == [str(one.rname).lower() for one in wanted.rr]


def test_a_spelling_that_was_seen_first_serves_the_plain_one_too() -> None:
    known = Answers()
    known.remember(question("RPI1.Cluster.internal"), worked_out(question("RPI1.Cluster.internal")))
    plain = question("rpi1.cluster.internal")
    assert known.spelled(plain) == worked_out(plain)


def test_types_that_look_like_letters_are_not_confused() -> None:
    """HTTPS is 65, `A`; 97, `a`, is another type."""
    known = Answers()
    https = question("rpi1.cluster.internal", "HTTPS")
    assert https[-3] == 65
    known.remember(https, worked_out(https))
    other = https[:-3] + b"a" + https[-2:]
    assert known.spelled(https) is not None and known.spelled(other) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda query: query[:2] + b"\x81" + query[3:],  # a reply
        lambda query: query[:2] + b"\x21" + query[3:],  # another opcode
        lambda query: query[:5] + b"\2" + query[6:],  # two questions
        lambda query: query[:-1] + b"\3",  # class CH
        lambda query: query[:-1],
        lambda query: query + b"\0",
        lambda query: query[:12],
        lambda query: b"",
    ],
)
def test_a_query_that_differs_in_anything_else_is_worked_out_anew(change: object) -> None:
    assert callable(change)
    known = Answers()
    query = question("rpi1.cluster.internal")
    known.remember(query, worked_out(query))
    assert known.spelled(query) is not None
    other = change(query)
    assert other[2:] not in known.exact and known.spelled(other) is None


def test_what_does_not_come_again_is_not_kept() -> None:
    known = Answers()
    query = question("rpi1.cluster.internal", edns=True)
    cookie = query[:-2] + b"\0\x0c\0\x0a\0\x08" + bytes(8)
    known.remember(cookie, worked_out(query))
    assert not known.exact and known.spelled(cookie) is None
    compressed = query[:12] + b"\xc0\x0c" + query[14:]
    known.remember(compressed, worked_out(query))
    assert not known.exact


def test_no_more_than_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "REMEMBERED", 100)
    known = Answers()
    for number in range(250):
        query = question(f"n{number}.cluster.internal")
        known.remember(query, query)
        assert len(known.exact) <= 100
    assert known.exact


def test_any_bytes_have_an_end_or_none() -> None:
    dice = random.Random(53)
    for _ in range(5000):
        packet = dice.randbytes(dice.randrange(80))
        assert 0 <= name_end(packet) <= len(packet)
        Answers().spelled(packet)
