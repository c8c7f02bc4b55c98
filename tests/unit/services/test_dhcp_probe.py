"""Asking whether an address is in use: the packets, and what becomes of the answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from ipaddress import IPv4Address

import pytest
from scapy.layers.l2 import ARP, Ether

from kestrelpi.services.dhcp import probe
from kestrelpi.services.dhcp.answer import Answer
from kestrelpi.services.dhcp.policy import EVERYBODYS
from kestrelpi.services.dhcp.probe import Prober, probe_frame, user_of
from tests.unit.services.dhcp_bytes import EEPROM_4, MAC_3B, MAC_4, STRANGER, Bench, message, node

OWN = "02:00:00:00:00:01"
ADDRESS = IPv4Address("10.77.0.200")


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def reply(mac: str, address: IPv4Address | str = ADDRESS) -> bytes:
    return bytes(Ether(src=mac, dst=OWN) / ARP(op=2, hwsrc=mac, psrc=str(address), hwdst=OWN, pdst="0.0.0.0"))


def test_a_probe_says_nothing_of_its_sender_that_a_cache_would_keep() -> None:
    wanted = Ether(src=OWN, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=OWN, psrc="0.0.0.0", hwdst="00:00:00:00:00:00", pdst=str(ADDRESS)
    )
    assert probe_frame(raw(OWN), ADDRESS) == bytes(wanted)


def test_who_has_an_address() -> None:
    assert user_of(reply(STRANGER)) == (ADDRESS, raw(STRANGER))
    assert user_of(reply(STRANGER) + bytes(18)) == (ADDRESS, raw(STRANGER)), "padded to Ethernet's minimum"
    assert user_of(probe_frame(raw(STRANGER), ADDRESS)) is None, "somebody else's probe"
    for nonsense in (b"", reply(STRANGER)[:41], bytes(60), reply(STRANGER).replace(b"\x08\x06", b"\x86\xdd", 1)):
        assert user_of(nonsense) is None


class Wire:
    """The prober's end of a socket pair, with a MAC as a packet socket has it."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.fileno, self.send, self.recv, self.close = (
            self.here.fileno,
            self.here.send,
            self.here.recv,
            self.here.close,
        )

    def getsockname(self) -> tuple[str, int, int, int, bytes]:
        return "br0", probe.ETHERNET_ARP, 0, 1, raw(OWN)


async def verdict(heard: list[bytes], mac: str = MAC_4) -> tuple[str, int]:
    """What comes of a probe when `heard` is on the wire, and how many probes were sent."""
    wire = Wire()
    prober = Prober(wire)  # type: ignore[arg-type]
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    prober.probe(ADDRESS, mac, said.set_result)
    for frame in heard:
        wire.there.send(frame)
    result = await said
    assert not prober.busy
    await asyncio.sleep(0)
    prober.close()
    sent = 0
    with wire.there:
        while True:
            try:
                assert wire.there.recv(64) == probe_frame(raw(OWN), ADDRESS)
            except (BlockingIOError, ConnectionResetError):
                return result, sent
            sent += 1


def test_the_verdict() -> None:
    assert asyncio.run(verdict([])) == ("", probe.PROBES)
    assert asyncio.run(verdict([reply(STRANGER)])) == (STRANGER, 1)
    mine_and_others = [reply(MAC_4), reply(OWN), reply(STRANGER, "10.77.0.201"), b"nonsense"]
    assert asyncio.run(verdict(mine_and_others)) == ("", probe.PROBES)


class Probing:
    """A prober, its wire, and what it was asked to say."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.prober = Prober(self.wire)  # type: ignore[arg-type]
        self.said: list[tuple[str, str]] = []

    def probe(self, address: IPv4Address, mac: str = MAC_4) -> None:
        self.prober.probe(address, mac, lambda user: self.said.append((str(address), user)))

    def sent(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.wire.there.recv(64))
            except BlockingIOError:
                return found


def test_what_was_probed_ahead_is_known_at_once() -> None:
    async def room() -> list[tuple[str, str]]:
        probing = Probing()
        probing.prober.ahead(ADDRESS + number for number in range(100))
        await asyncio.sleep(0.03)
        probing.wire.there.send(reply(STRANGER, ADDRESS + 1))
        probing.wire.there.send(reply(MAC_4, ADDRESS + 2))
        while probing.prober._running or probing.prober._ahead:
            await asyncio.sleep(0.01)
        sent = probing.sent()
        assert {sent.count(probe_frame(raw(OWN), ADDRESS + number)) for number in range(3, 100)} == {probe.PROBES}
        for number in range(3):
            probing.probe(ADDRESS + number)
        assert probing.sent() == [], "nothing is asked again"
        probing.prober.close()
        return probing.said

    assert asyncio.run(room()) == [("10.77.0.200", ""), ("10.77.0.201", STRANGER), ("10.77.0.202", "")]


def test_an_address_that_is_wanted_while_it_is_probed_ahead() -> None:
    async def room() -> list[tuple[str, str]]:
        probing = Probing()
        probing.prober.ahead([ADDRESS, ADDRESS + 1])
        await asyncio.sleep(0.02)
        probing.probe(ADDRESS)
        probing.probe(ADDRESS + 1)
        assert len(probing.sent()) == 2
        probing.wire.there.send(reply(MAC_4))
        probing.wire.there.send(reply(STRANGER, ADDRESS + 1))
        while len(probing.said) < 2:
            await asyncio.sleep(0.01)
        probing.prober.close()
        return probing.said

    assert asyncio.run(room()) == [("10.77.0.201", STRANGER), ("10.77.0.200", "")]


def test_no_more_than_the_bound_is_probed_ahead() -> None:
    async def room() -> int:
        probing = Probing()
        probing.prober.ahead(ADDRESS + number for number in range(10 * probe.AHEAD))
        waiting = len(probing.prober._ahead)
        probing.prober.close()
        return waiting

    assert asyncio.run(room()) == probe.AHEAD


def test_a_storm_is_not_probed_beyond_the_limit() -> None:
    async def storm() -> list[bool]:
        prober = Prober(Wire())  # type: ignore[arg-type]
        seen = []
        for number in range(probe.LIMIT):
            seen.append(prober.busy)
            prober.probe(ADDRESS + number, MAC_4, lambda user: None)
        seen.append(prober.busy)
        prober.close()
        return seen

    assert asyncio.run(storm()) == [False] * probe.LIMIT + [True]


def test_only_an_address_that_is_new_for_the_client_is_probed() -> None:
    bench = Bench(nodes=[node()])
    assert bench.answer(message(EEPROM_4, MAC_3B)).probe
    assert not bench.answer(message(EEPROM_4, MAC_3B)).probe
    bench.now += 20 * 3600
    assert not bench.answer(message(EEPROM_4, MAC_3B)).probe, "its old one, over or not"
    assert not bench.answer(message(EEPROM_4)).probe, "a node's own"


def taken(bench: Bench, answer: Answer, by: str = STRANGER) -> Answer | None:
    return bench.policy.taken(bench.parsed(message(EEPROM_4, MAC_3B)), answer, by, bench.now)


def test_an_address_in_use_is_named_and_another_one_offered(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench("network: {address: 10.77.0.1/24, pool: 10.77.0.200-10.77.0.202}\n")
    with caplog.at_level(logging.WARNING, "kestrelpi"):
        first = bench.answer(message(EEPROM_4, MAC_3B))
        second = taken(bench, first)
    assert second is not None and second.probe and second.address != first.address
    assert f"{first.address} is in use by {STRANGER}" in caplog.text
    assert bench.answer(message(EEPROM_4, MAC_3B)).address == second.address
    third = bench.answer(message(EEPROM_4, STRANGER))
    assert third.address not in (first.address, second.address)
    assert bench.ask(message(EEPROM_4, MAC_4)) is None, "the pool is full while the address is in quarantine"
    bench.now += 601
    assert bench.answer(message(EEPROM_4, MAC_4)).address == first.address


def test_who_answers_for_every_address_is_not_believed_for_ever() -> None:
    bench = Bench("network: {address: 10.77.0.1/24, pool: 10.77.0.130-10.77.0.200}\n")
    answer: Answer | None = bench.answer(message(EEPROM_4, MAC_3B))
    for _ in range(EVERYBODYS):
        assert answer is not None and answer.probe
        answer = taken(bench, answer)
    assert answer is not None and answer.probe
    last = taken(bench, answer)
    assert last is not None and (last.address, last.probe) == (answer.address, False)
