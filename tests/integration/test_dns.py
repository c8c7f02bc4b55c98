"""DNS against dig: our names over UDP and TCP, and forwarding to a dnsmasq."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dnslib import DNSHeader, DNSQuestion, DNSRecord

from kestrelpi import run
from kestrelpi.config import parse
from kestrelpi.errors import UserError
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.services.dns import DnsServer
from tests.integration.servers import started
from tests.waiting import until

CONFIG = """
cluster: teach
network:
  address: 10.77.0.1/24
services:
  listen: 127.0.0.1
  dns:
    port: {port}
"""


@dataclass
class FakeDirectory:
    registry: Registry


def free_port() -> int:
    """A port that is free for UDP and TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def node(number: int) -> Node:
    return Node(f"rpi{number}", f"dc:a6:32:00:00:{number:02x}", "rpi", IPv4Address(f"10.77.0.{10 + number}"))


@contextmanager
def serving(port: int, directory: FakeDirectory, resolvers: list[tuple[str, int]]) -> Iterator[DnsServer]:
    """A DNS server in a thread with its own event loop."""
    loop = asyncio.new_event_loop()
    server = DnsServer(parse(CONFIG.format(port=port)), directory, resolvers)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A dnsmasq that knows a few foreign names, one of them with more text than fits into a UDP packet."""
    port = free_port()
    folder: Path = tmp_path_factory.mktemp("dnsmasq")
    lines = [f"port={port}", "listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts", "user=root"]
    lines += ["address=/example.org/192.0.2.7", "no-daemon", f"pid-file={folder / 'pid'}"]
    lines += [f"txt-record=long.example.org,{'x' * 200}{number:03}" for number in range(12)]
    (folder / "conf").write_text("\n".join(lines) + "\n")
    process = started(["dnsmasq", f"--conf-file={folder / 'conf'}"])
    try:
        until(lambda: "192.0.2.7" in dig(port, "example.org", "+tries=1", "+time=1"), "an answer of dnsmasq's", 10)
        yield port
    finally:
        run.stop(process)


def dig(port: int, *words: str) -> str:
    """What dig prints; its status doesn't matter here, what it prints is looked at."""
    try:
        return run.run(["dig", "@127.0.0.1", "-p", str(port), "+tries=1", "+time=6", *words]).stdout
    except run.CommandFailed as failed:
        return failed.detail


@pytest.fixture(scope="module")
def server(upstream: int) -> Iterator[int]:
    port = free_port()
    directory = FakeDirectory(Registry.of([node(1), node(2)]))
    with serving(port, directory, [("127.0.0.1", upstream)]):
        yield port


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["rpi1.cluster.internal"], "10.77.0.11"),
        (["RPI2.Cluster.Internal"], "10.77.0.12"),
        (["rpi1"], "10.77.0.11"),
        (["frontend.cluster.internal"], "127.0.0.1"),
        (["teach"], "127.0.0.1"),
        (["-x", "10.77.0.12"], "rpi2.cluster.internal."),
        (["-x", "127.0.0.1"], "frontend.cluster.internal."),
        (["cluster.internal", "NS"], "frontend.cluster.internal."),
        (["rpi1.cluster.internal", "AAAA"], ""),
        (["rpi1.cluster.internal", "MX"], ""),
        (["example.org"], "192.0.2.7"),
    ],
)
def test_names(server: int, transport: str, words: list[str], answer: str) -> None:
    assert dig(server, transport, "+short", *words).strip() == answer


@pytest.mark.parametrize(
    ("words", "status", "flags"),
    [
        (["rpi1.cluster.internal"], "NOERROR", "aa"),
        (["rpi1.cluster.internal", "AAAA"], "NOERROR", "aa"),
        (["rpi9.cluster.internal"], "NXDOMAIN", "aa"),
        (["rpi9"], "NXDOMAIN", "aa"),
        (["-x", "10.77.0.99"], "NXDOMAIN", "aa"),
        (["+opcode=STATUS", "rpi1.cluster.internal"], "NOTIMP", "qr"),
        (["rpi1.cluster.internal", "A", "CH"], "REFUSED", "qr"),
        (["-c", "CH", "rpi1.cluster.internal"], "REFUSED", "qr"),
        (["+noedns", "rpi1.cluster.internal"], "NOERROR", "aa"),
    ],
)
def test_statuses(server: int, words: list[str], status: str, flags: str) -> None:
    said = dig(server, *words)
    assert f"status: {status}," in said
    assert flags in said.split(";; flags:")[1].split(";")[0].split()


def test_negative_answers_carry_the_soa(server: int) -> None:
    assert "SOA\tfrontend.cluster.internal." in dig(server, "rpi9.cluster.internal")


def test_edns_is_answered_and_only_when_asked(server: int) -> None:
    assert "EDNS: version: 0" in dig(server, "+edns=0", "rpi1.cluster.internal")
    assert "EDNS" not in dig(server, "+noedns", "rpi1.cluster.internal")


def test_a_long_answer_comes_over_tcp(server: int) -> None:
    cut = dig(server, "+ignore", "+noedns", "long.example.org", "TXT")
    assert "tc" in cut.split(";; flags:")[1].split(";")[0].split()
    whole = dig(server, "long.example.org", "TXT")
    assert whole.count('xxx"') + whole.count("IN\tTXT") >= 12
    assert "ANSWER: 12," in whole


def test_a_silent_resolver_is_passed_over_and_none_at_all_is_servfail(upstream: int) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        deaf = ("127.0.0.1", silent.getsockname()[1])
        with serving(port, FakeDirectory(Registry()), [deaf, ("127.0.0.1", upstream)]):
            assert dig(port, "+short", "example.org").strip() == "192.0.2.7"
        with serving(port, FakeDirectory(Registry()), [deaf]):
            assert "status: SERVFAIL," in dig(port, "example.org")
            assert "status: NXDOMAIN," in dig(port, "gone.cluster.internal"), "our own names need nobody"


def test_a_forged_reply_is_not_taken() -> None:
    """A resolver that answers with another id, then to another question, then rightly."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))

        def answer() -> None:
            query, client = resolver.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4"
            right = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end] + record
            wrong_question = right.replace(b"example", b"elsewhe")
            resolver.sendto(bytes([query[0] ^ 1]) + right[1:] + b"\6\6\6\6", client)
            resolver.sendto(wrong_question + b"\6\6\6\6", client)
            resolver.sendto(b"", client)
            resolver.sendto(right + b"\xc0\0\2\1", client)

        thread = threading.Thread(target=answer)
        thread.start()
        with serving(port, FakeDirectory(Registry()), [("127.0.0.1", resolver.getsockname()[1])]):
            assert dig(port, "+short", "+noedns", "example.net").strip() == "192.0.2.1"
        thread.join()


def test_a_new_registry_is_seen_at_once() -> None:
    port = free_port()
    directory = FakeDirectory(Registry.of([node(1)]))
    with serving(port, directory, []):
        assert dig(port, "+short", "+noedns", "rpi1").strip() == "10.77.0.11"
        moved = Node("rpi1", "dc:a6:32:00:00:01", "rpi", IPv4Address("10.77.0.50"))
        directory.registry = Registry.of([moved])
        assert dig(port, "+short", "+noedns", "rpi1").strip() == "10.77.0.50"


def test_a_flood_of_usual_and_unusual_questions_is_answered_each_with_its_own(upstream: int) -> None:
    """More than a batch takes, of every kind, from two clients: nobody gets another's answer."""
    port = free_port()
    names = {"rpi1": "10.77.0.11", "RPI1": "10.77.0.11", "rpi2": "10.77.0.12", "gone": "", "example.org": "192.0.2.7"}
    with serving(port, FakeDirectory(Registry.of([node(1), node(2)])), [("127.0.0.1", upstream)]) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
            wanted: dict[tuple[int, int], tuple[str, str]] = {}
            for number in range(300):
                name, answer = list(names.items())[number % len(names)]
                sock = one if number % 3 else two
                sock.sendto(
                    bytes(DNSRecord(DNSHeader(id=number, rd=1), q=DNSQuestion(name)).pack()), ("127.0.0.1", port)
                )
                wanted[sock.fileno(), number] = name, answer
            for sock in (one, two):
                sock.settimeout(5)
                for _ in range(sum(fd == sock.fileno() for fd, _ in wanted)):
                    reply = DNSRecord.parse(sock.recv(2048))
                    name, answer = wanted.pop((sock.fileno(), reply.header.id))
                    assert str(reply.q.qname) == f"{name}.", "its spelling comes back"
                    assert [str(record.rdata) for record in reply.rr] == ([answer] if answer else [])
        assert not wanted
        assert server.counters["answered"] == 240 and server.counters["forwarded"] == 60


def test_nonsense_is_dropped_and_counted() -> None:
    port = free_port()
    with serving(port, FakeDirectory(Registry.of([node(1)])), []) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for packet in (b"", b"x", b"\0" * 11, b"\xff" * 500):
                sock.sendto(packet, ("127.0.0.1", port))
        assert dig(port, "+short", "rpi1").strip() == "10.77.0.11"
        assert server.counters["malformed"] == 4


def test_a_taken_port_is_said() -> None:
    port = free_port()
    directory = FakeDirectory(Registry())
    with serving(port, directory, []), pytest.raises(UserError, match=f"127.0.0.1:{port}") as told:
        asyncio.run(DnsServer(parse(CONFIG.format(port=port)), directory).start())
    assert f"ss -lunpt 'sport = :{port}'" in told.value.fix
