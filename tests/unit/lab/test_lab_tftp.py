"""The boot loaders' TFTP: requests to the byte, lock-step, probes, losses."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from kestrelpi.lab.ports import Port
from kestrelpi.lab.profiles import (
    BOOTCODE_TFTP,
    EEPROM_5_TFTP,
    EEPROM_TFTP,
    OLD_EEPROM_TFTP,
    ROM_TFTP,
    START4,
    TftpTraits,
)
from kestrelpi.lab.tftp import Result, TftpClient
from tests.unit.lab.fakes import SERVER, FakeClock, FakeHost

CONTENT = bytes(range(256)) * 20


def client(traits: TftpTraits, host: FakeHost) -> TftpClient:
    return TftpClient(traits, host, SERVER)


class Script:
    """A server that answers each packet of ours as the test says, or loses it."""

    def __init__(self, host: FakeHost, answer: Callable[[bytes, int], list[tuple[bytes, int]]]) -> None:
        self.host, self.answer = host, answer
        self.sent: list[tuple[float, bytes, int]] = []
        self.waiting: list[tuple[bytes, int]] = []

    def send(self, data: bytes, port: int) -> None:
        self.sent.append((self.host.clock.now(), data, port))
        self.waiting += self.answer(data, len(self.sent))

    def receive(self, deadline: float) -> tuple[bytes, int] | None:
        if self.waiting:
            return self.waiting.pop(0)
        assert isinstance(self.host.clock, FakeClock)
        self.host.clock.time = max(self.host.clock.time, deadline)
        return None

    def close(self) -> None:
        return


def scripted(answer: Callable[[bytes, int], list[tuple[bytes, int]]]) -> tuple[FakeHost, Script]:
    host = FakeHost()
    script = Script(host, answer)

    def port(number: int, server: object) -> Port:
        return script

    host.port = port  # type: ignore[method-assign]
    return host, script


def data(number: int, content: bytes) -> bytes:
    return struct.pack("!HH", 3, number) + content


@pytest.mark.parametrize(
    ("traits", "options"),
    [
        (ROM_TFTP, b""),
        (BOOTCODE_TFTP, b"tsize\x000\0"),
        (OLD_EEPROM_TFTP, b"tsize\x000\0blksize\x001024\0"),
        (EEPROM_TFTP, b"tsize\x000\0blksize\x001468\0"),
        (EEPROM_5_TFTP, b"tsize\x000\0blksize\x001468\0"),
    ],
)
def test_requests(traits: TftpTraits, options: bytes) -> None:
    assert client(traits, FakeHost()).request("a/b") == b"\0\1a/b\0octet\0" + options


def test_start4_asks_for_1024() -> None:
    assert b"blksize\x001024\0" in client(START4, FakeHost()).request("a")


@pytest.mark.parametrize("traits", [ROM_TFTP, BOOTCODE_TFTP, EEPROM_TFTP])
@pytest.mark.parametrize("size", [0, 511, 512, 1468, 2936, 5000])
def test_whole_files(traits: TftpTraits, size: int) -> None:
    host = FakeHost(files={"a": CONTENT[:size]})
    got = client(traits, host).get("a")
    assert (got.result, got.content, got.size) == (Result.GOT, CONTENT[:size], size)
    assert got.acknowledged == traits.tsize


def test_without_acknowledgement_blocks_have_512_bytes() -> None:
    got = client(EEPROM_TFTP, FakeHost(files={"a": CONTENT}, oack=False)).get("a")
    assert (got.acknowledged, got.blksize, len(got.blocks), got.content) == (False, 512, 11, CONTENT)


def test_missing_file() -> None:
    got = client(EEPROM_TFTP, FakeHost()).get("a")
    assert (got.result, got.error, got.size) == (Result.MISSING, "error 1: not here", 0)


def test_each_request_takes_the_next_port() -> None:
    host = FakeHost(files={"a": b"x"})
    rom = client(ROM_TFTP, host)
    rom.get("a")
    rom.get("b")
    eeprom = client(EEPROM_TFTP, host)
    eeprom.probe("a")
    eeprom.get("a")
    assert host.numbers == [49152, 49153, 40084, 40085]


@pytest.mark.parametrize("first", [b"\0\6tsize\x005120\0blksize\x001468\0", data(1, CONTENT[:512])])
def test_a_probe_ends_early_after_the_first_packet(first: bytes) -> None:
    host, script = scripted(lambda sent, count: [(first, 5000)] if count == 1 else [])
    got = client(EEPROM_TFTP, host).probe("a")
    assert got.result is Result.PROBED
    assert [(packet, port) for _, packet, port in script.sent[1:]] == [(b"\0\5\0\0Early terminate\0", 5000)]


def test_a_request_is_repeated_every_two_seconds_for_thirty() -> None:
    host, script = scripted(lambda sent, count: [])
    got = client(EEPROM_TFTP, host).get("a")
    assert [at for at, _, _ in script.sent] == list(range(0, 30, 2))
    assert (got.result, got.retries, got.seconds) == (Result.TIMEOUT, 14, 30)


def test_only_requests_are_repeated() -> None:
    host, script = scripted(lambda sent, count: [(b"\0\6tsize\x005120\0", 5000)] if count == 1 else [])
    got = client(BOOTCODE_TFTP, host).get("a")
    assert got.result is Result.TIMEOUT
    assert [packet for _, packet, _ in script.sent[1:]] == [b"\0\4\0\0"]


def duplicating(sent: bytes, count: int) -> list[tuple[bytes, int]]:
    first, last = (data(1, bytes(512)), 5000), (data(2, b"end"), 5000)
    return {1: [first, first], 2: [], 3: [last]}.get(count, [])


def test_a_block_that_comes_twice_is_acknowledged_twice() -> None:
    host, script = scripted(duplicating)
    got = client(ROM_TFTP, host).get("a")
    assert [packet for _, packet, _ in script.sent[1:]] == [b"\0\4\0\1", b"\0\4\0\1", b"\0\4\0\2"]
    assert (got.duplicates, got.content) == (1, bytes(512) + b"end")


def test_an_old_eeprom_acknowledges_once() -> None:
    host, script = scripted(duplicating)
    client(replace(OLD_EEPROM_TFTP, blksize=None), host).get("a")
    assert [packet for _, packet, _ in script.sent[1:]] == [b"\0\4\0\1"]


def test_other_senders_and_nonsense_are_passed_over() -> None:
    answers = [(b"", 5000), (b"\0", 5000), (b"\0\x09\0\1", 5000), (data(1, bytes(512)), 5000), (data(2, b"bad"), 6000)]
    host, _ = scripted(lambda sent, count: {1: answers, 2: [(data(2, b"good"), 5000)]}.get(count, []))
    assert client(ROM_TFTP, host).get("a").content == bytes(512) + b"good"


def test_a_larger_block_than_asked_for_is_refused() -> None:
    host, script = scripted(lambda sent, count: [(b"\0\6blksize\x009000\0", 5000)] if count == 1 else [])
    assert client(EEPROM_TFTP, host).get("a").result is Result.TIMEOUT
    assert script.sent[1][1][:4] == b"\0\5\0\x08"


@pytest.mark.parametrize(
    ("traits", "result", "blocks"), [(START4, Result.TRUNCATED, 65535), (EEPROM_TFTP, Result.GOT, 65538)]
)
def test_block_65536(traits: TftpTraits, result: Result, blocks: int) -> None:
    """New firmware goes on with block 0; old firmware takes what it has for the whole file."""
    content = bytes(8) * 65537 + b"end"
    host, _ = scripted(
        lambda sent, count: (
            [(b"\0\6blksize\x008\0", 5000)]
            if count == 1
            else [(data((count - 1) & 0xFFFF, content[(count - 2) * 8 : (count - 1) * 8]), 5000)]
        )
    )
    got = client(traits, host).get("a")
    assert (got.result, len(got.blocks)) == (result, blocks)
    assert got.content == content[: blocks * 8]
