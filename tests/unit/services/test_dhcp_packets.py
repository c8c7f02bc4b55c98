"""Bytes: the captured DISCOVERs, the offer for all models to the byte, frames, filters, and damaged packets."""

from __future__ import annotations

import random
import socket
import struct
from ipaddress import IPv4Address

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from kestrelpi.nodes.models import identify
from kestrelpi.services.dhcp import wire
from kestrelpi.services.dhcp.packet import Kind, Malformed, parse
from tests.unit.services.dhcp_bytes import BOOTCODE, EEPROM_4, GUID_4, MAC_3B, MAC_4, ROM_3B, Bench, message, options_of

VENDOR = (
    b"\x06\x01\x03"
    b"\x0a\x04\x00PXE"
    b"\x09\x17\x00\x00\x14Raspberry Pi Boot   "
    b"\xff"
)  # the 35 bytes that a Pi 3B's ROM accepts


def test_the_discover_of_a_3b_rom() -> None:
    raw = message(ROM_3B, MAC_3B)
    assert len(raw) == 320
    said = parse(raw)
    assert (said.kind, said.xid, said.mac, said.broadcast) == (Kind.DISCOVER, 0x26F30339, MAC_3B, False)
    assert said.pxe and said.guid == b"\0" + b"D" * 16
    assert list(said.wanted) == [43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66]


def test_the_discover_of_bootcode_and_of_a_pi_4() -> None:
    bootcode = parse(message(BOOTCODE, "b8:27:eb:86:96:f5"))
    assert len(message(BOOTCODE)) == len(message(EEPROM_4)) == 322
    assert identify(bootcode.guid, bootcode.mac).serial == "8d8696f5"
    pi4 = identify(parse(message(EEPROM_4)).guid, MAC_4)
    assert (pi4.serial, pi4.revision, pi4.model) == ("91cdf03d", 0xD03114, "4B")


def test_the_offer_to_the_byte() -> None:
    offer = Bench("network: {address: 10.77.0.1/24, pool: 10.77.0.200-10.77.0.200}\n").answer(message(EEPROM_4)).packet
    assert offer[:4] == b"\x02\x01\x06\x00"
    assert offer[4:8] == bytes.fromhex("26f30339")
    assert offer[8:12] == bytes(4), "secs and flags"
    assert offer[12:28] == bytes(4) + bytes([10, 77, 0, 200]) + bytes([10, 77, 0, 1]) + bytes(4)
    assert offer[28:44] == bytes.fromhex("e45f010902f7").ljust(16, b"\0")
    assert offer[44:108] == bytes(64)
    assert offer[108:236] == b"bootcode.bin".ljust(128, b"\0")
    assert offer[236:240] == b"\x63\x82\x53\x63"
    assert len(VENDOR) == 35
    assert options_of(offer) == [
        (53, b"\x02"),
        (54, b"\x0a\x4d\x00\x01"),
        (51, struct.pack("!I", 12 * 3600)),
        (1, b"\xff\xff\xff\x00"),
        (3, b"\x0a\x4d\x00\x01"),
        (6, b"\x0a\x4d\x00\x01"),
        (15, b"cluster.internal"),
        (60, b"PXEClient"),
        (66, b"10.77.0.1"),
        (43, VENDOR),
        (97, GUID_4),
    ]


def test_a_reply_is_never_shorter_than_300_bytes() -> None:
    bench = Bench()
    nak = bench.answer(message([(53, b"\x03"), (50, bytes([192, 0, 2, 9]))]))
    assert nak.kind is Kind.NAK and len(nak.packet) == 300


def test_scapys_whole_layers_see_the_same() -> None:
    """We use scapy for the options alone; its BOOTP layer must agree on the rest."""
    seen = BOOTP(Bench().answer(message(EEPROM_4, flags=0x8000)).packet)
    assert (seen.op, seen.xid, int(seen.flags), seen.siaddr) == (2, 0x26F30339, 0x8000, "10.77.0.1")
    assert ("vendor_specific", VENDOR) in seen[DHCP].options and seen[DHCP].options[0] == ("message-type", 2)
    built = BOOTP(
        op=1, xid=7, flags=0x8000, ciaddr="10.77.0.5", giaddr="10.77.0.6", chaddr=bytes.fromhex("dca632010203")
    ) / DHCP(options=[("message-type", "request"), ("requested_addr", "10.77.0.9"), ("server_id", "10.77.0.1"), "end"])
    said = parse(bytes(built))
    assert (said.kind, said.xid, said.broadcast, said.mac) == (Kind.REQUEST, 7, True, "dc:a6:32:01:02:03")
    assert (said.ciaddr, said.giaddr) == (IPv4Address("10.77.0.5"), IPv4Address("10.77.0.6"))
    assert (said.requested, said.server) == (IPv4Address("10.77.0.9"), IPv4Address("10.77.0.1"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        message(EEPROM_4)[:240],
        message(EEPROM_4)[:239],
        message([]),
        message([(53, b"\x09")]),
        message([(53, b"")]),
        message([(53, b"\x01")], mac="01:00:5e:00:00:01"),
        message([(53, b"\x01")], mac="00:00:00:00:00:00"),
        message([(53, b"\x01")], op=3),
        message(EEPROM_4).replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
        message(EEPROM_4)[:1] + b"\x06" + message(EEPROM_4)[2:],
        message(EEPROM_4)[:2] + b"\x10" + message(EEPROM_4)[3:],
        message(EEPROM_4) + bytes(2000),
    ],
)
def test_what_is_no_message_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


def test_an_option_that_is_cut_off_does_not_hide_those_before_it() -> None:
    said = parse(message(EEPROM_4)[:-5])
    assert said.kind is Kind.DISCOVER and said.guid == GUID_4 and not said.pxe


def test_two_thousand_damaged_messages_raise_nothing_else() -> None:
    dice = random.Random(20261122)
    bench = Bench()
    request = [(53, b"\x03"), (50, bytes([10, 77, 0, 130])), (54, bytes([10, 77, 0, 1])), (12, b"pi"), (61, b"\x01x")]
    seeds = [message(ROM_3B, MAC_3B), message(BOOTCODE), message(EEPROM_4), message(request), message([(53, b"\x08")])]
    malformed = 0
    for _ in range(2_000):
        raw = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            place = dice.randrange(len(raw)) if dice.random() < 0.3 else dice.randrange(228, len(raw))
            raw[place] = dice.randrange(256)
        damaged = bytes(raw[: dice.randint(0, len(raw))] if dice.random() < 0.2 else raw)
        try:
            bench.ask(damaged)
        except Malformed:
            malformed += 1
    assert 100 < malformed < 1_500
    assert len(bench.book.all()) < 300, "the pool bounds the leases"


def test_a_frame_is_what_scapy_would_make() -> None:
    payload = Bench().answer(message(EEPROM_4)).packet + b"x"  # odd length: the checksum must pad
    raw = wire.frame(b"\2\0\0\0\0\1", bytes(6), IPv4Address("10.77.0.1"), IPv4Address("10.77.0.200"), payload)
    seen = Ether(raw)
    assert (seen[IP].src, seen[IP].dst, seen[UDP].sport, seen[UDP].dport) == ("10.77.0.1", "10.77.0.200", 67, 68)
    sums = seen[IP].chksum, seen[UDP].chksum
    del seen[IP].chksum, seen[UDP].chksum
    again = Ether(bytes(seen))
    assert (again[IP].chksum, again[UDP].chksum) == sums
    assert wire.udp_payload(raw) == payload


def accepts(frame: bytes) -> bool:
    """A classic BPF machine, as far as our filter needs one."""
    code = [struct.unpack_from("HBBI", wire.foreign_filter(), at) for at in range(0, len(wire.foreign_filter()), 8)]
    at = accumulator = index = 0
    while True:
        opcode, yes, no, value = code[at]
        at += 1
        if opcode == 0x06:
            return bool(value)
        if opcode in (0x28, 0x48):
            place = value + (index if opcode == 0x48 else 0)
            accumulator = int.from_bytes(frame[place : place + 2], "big")
        elif opcode == 0x30:
            accumulator = frame[value]
        elif opcode == 0xB1:
            index = 4 * (frame[value] & 15)
        elif opcode == 0x15:
            at += yes if accumulator == value else no
        else:
            assert opcode == 0x45
            at += yes if accumulator & value else no


def test_the_filter_hears_other_servers_and_nothing_else() -> None:
    payload = bytes(300)

    def made(sport: int, dport: int, **ip: object) -> bytes:
        return bytes(
            Ether(src="02:00:00:00:00:01") / IP(src="10.77.0.2", **ip) / UDP(sport=sport, dport=dport) / payload
        )

    assert accepts(made(67, 68))
    assert accepts(made(67, 68, options=b"\x01\x01\x01\x01")), "a longer IP header"
    assert not accepts(made(68, 67))
    assert not accepts(made(67, 67))
    assert not accepts(made(53, 68))
    assert not accepts(made(67, 68, frag=10)), "a later fragment has no ports"
    assert not accepts(made(67, 68, proto=socket.IPPROTO_TCP))
    assert not accepts(made(67, 68)[:12] + b"\x86\xdd" + made(67, 68)[14:])
