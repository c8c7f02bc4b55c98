"""Requests and options as Pis send them (RFC 1350, 2347 to 2349), and what nobody should send."""

from __future__ import annotations

import random

import pytest

from kestrelpi.services.tftp.packets import (
    ErrorCode,
    Malformed,
    agree,
    error,
    error_text,
    parse_request,
)

PI4 = b"\0\x019c3f5a11/start4.elf\0octet\0tsize\x000\0blksize\x001468\0"
ROM_3B = b"\0\x01bootcode.bin\0octet\0"


def test_a_pi_4_asks_with_options() -> None:
    request = parse_request(PI4)
    assert (request.write, request.path, request.mode) == (False, "9c3f5a11/start4.elf", "octet")
    assert list(request.options.items()) == [("tsize", "0"), ("blksize", "1468")]


def test_a_pi_3_rom_asks_without_options() -> None:
    request = parse_request(ROM_3B)
    assert request.options == {}
    agreed = agree(request.options, 52_000)
    assert (agreed.block, agreed.oack) == (512, b"")


def test_mode_and_option_names_are_case_insensitive() -> None:
    request = parse_request(b"\0\x01a\0OcTeT\0BLKSIZE\x00700\0")
    assert request.mode == "octet"
    assert agree(request.options, 1).block == 700


@pytest.mark.parametrize(
    ("options", "block", "oack"),
    [
        ({"tsize": "0", "blksize": "1468"}, 1468, b"\0\6tsize\x001000\0blksize\x001468\0"),
        ({"blksize": "1024", "tsize": "0"}, 1024, b"\0\6blksize\x001024\0tsize\x001000\0"),
        ({"tsize": "0"}, 512, b"\0\6tsize\x001000\0"),
        ({"blksize": "65464"}, 1468, b"\0\6blksize\x001468\0"),
        ({"blksize": "8"}, 8, b"\0\6blksize\x008\0"),
        ({"blksize": "7"}, 512, b""),
        ({"blksize": "-5"}, 512, b""),
        ({"blksize": "many"}, 512, b""),
        ({"blksize": "9" * 400}, 1468, b"\0\6blksize\x001468\0"),
        ({"timeout": "1", "windowsize": "16"}, 512, b""),
        ({"timeout": "1", "tsize": "0"}, 512, b"\0\6tsize\x001000\0"),
    ],
)
def test_only_tsize_and_blksize_are_granted(options: dict[str, str], block: int, oack: bytes) -> None:
    agreed = agree(options, 1000)
    assert (agreed.block, agreed.oack) == (block, oack)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"\0\x01",
        b"\0\x01\0octet\0",
        b"\0\x01file",
        b"\0\x01file\0octet",
        b"\0\x01file\0octet\0blksize\0",
        b"\0\x01file\0octet\0\0\0",
        b"\0\x01f\xffle\0octet\0",
        b"\0\x01file\0octet\0blksize\x001468",
        b"\0\x03\0\x01data",
        b"\0\x09file\0octet\0",
        b"\0\x01" + b"a" * 1100 + b"\0octet\0",
    ],
)
def test_what_is_no_request_is_malformed(packet: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(packet)


def test_ten_thousand_damaged_requests_raise_nothing_else() -> None:
    dice = random.Random(20261122)
    refused = 0
    for _ in range(10_000):
        packet = bytearray(dice.choice([PI4, ROM_3B]))
        for _ in range(dice.randint(1, 6)):
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        damaged = bytes(packet[: dice.randint(0, len(packet))])
        try:
            agree(parse_request(damaged).options, 5)
        except Malformed:
            refused += 1
    assert 5_000 < refused < 10_000


def test_errors() -> None:
    assert error(ErrorCode.NOT_FOUND, "file not found") == b"\0\5\0\1file not found\0"
    assert error_text(b"\0\5\0\0Early terminate\0") == "0 Early terminate"
    assert error_text(b"\0\5") == "0"
    assert error_text(b"\0\5\0\x08\xff\x1b[31m") == "8 ??[31m"
