"""The rules: who gets what, for how long, and when nobody gets anything."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from kestrelpi.nodes import leases
from kestrelpi.nodes.boots import Kind as Sign
from kestrelpi.nodes.boots import Stage
from kestrelpi.services.dhcp import policy, ratelimit
from kestrelpi.services.dhcp.answer import Answer
from kestrelpi.services.dhcp.book import QUARANTINE
from kestrelpi.services.dhcp.packet import Kind
from kestrelpi.services.dhcp.policy import HOLD
from kestrelpi.services.dhcp.ratelimit import RateLimit
from tests.unit.services.dhcp_bytes import (
    BOOTCODE,
    EEPROM_4,
    GUID_4,
    MAC_3B,
    MAC_4,
    OPTION,
    ROM_3B,
    STRANGER,
    Bench,
    message,
    node,
    options_of,
)

US = bytes([10, 77, 0, 1])
LINUX: tuple[OPTION, ...] = ((53, b"\x01"), (55, bytes([1, 3, 6, 12, 15])), (61, b"\x01abcdef"), (12, b"raspberrypi"))
BOOT_OPTIONS = {43, 60, 66, 97}
TINY = "network: {address: 10.77.0.1/24, pool: 10.77.0.200-10.77.0.201}\n"
OPEN = "network: {address: 10.77.0.1/24}\nservices: {dhcp: {strangers: address}}\n"


def request(address: str, server: bytes = US, mac: str = MAC_4, xid: int = 5, more: tuple[OPTION, ...] = ()) -> bytes:
    chosen: tuple[OPTION, ...] = ((53, b"\x03"), (50, IPv4Address(address).packed))
    return message((*chosen, *(((54, server),) if server else ()), *more), mac, xid)


def codes(answer: Answer) -> set[int]:
    return {code for code, _ in options_of(answer.packet)}


def test_a_registered_node_gets_its_address_and_what_boots_it() -> None:
    bench = Bench(nodes=[node()])
    offer = bench.answer(message(EEPROM_4))
    assert (offer.kind, offer.address) == (Kind.OFFER, IPv4Address("10.77.0.11"))
    assert codes(offer) >= BOOT_OPTIONS
    ack = bench.answer(request("10.77.0.11", more=((60, b"PXEClient:Arch:00000:UNDI:002001"),)))
    assert (ack.kind, ack.address) == (Kind.ACK, IPv4Address("10.77.0.11"))
    assert codes(ack) >= {43, 60, 66}
    assert [stage for _, stage, _ in bench.events] == [Stage.DISCOVER, Stage.OFFER, Stage.REQUEST]
    assert bench.sightings[0][1].serial == "91cdf03d"


def test_the_operating_system_gets_a_name_and_no_boot_files() -> None:
    bench = Bench(nodes=[node()])
    offer = bench.answer(message(LINUX))
    assert not codes(offer) & BOOT_OPTIONS
    assert (12, b"rpi1") in options_of(offer.packet)
    assert offer.packet[108:236] == bytes(128)
    ack = bench.answer(request("10.77.0.11"))
    assert (ack.kind, ack.address) == (Kind.ACK, IPv4Address("10.77.0.11")) and not codes(ack) & BOOT_OPTIONS
    assert bench.events == [], "the boot's timeline is the boot loader's"


def test_every_stage_of_a_boot_gets_the_same_address() -> None:
    """ROM, bootcode and Linux send different options and client-ids; the Pi 3's loaders never send a REQUEST."""
    bench = Bench()
    addresses = set()
    for options, seconds in ((ROM_3B, 0.0), (ROM_3B, 5.0), (BOOTCODE, 9.0), (LINUX, 30.0)):
        bench.now += seconds
        addresses.add(bench.answer(message(options, MAC_3B)).address)
    assert len(addresses) == 1
    lease = bench.book.get(MAC_3B)
    assert lease is not None and lease.expires == bench.now + 12 * 3600
    assert lease.hostname == "raspberrypi"


def test_only_the_3b_rom_waits_for_its_offer() -> None:
    bench = Bench()
    assert bench.answer(message(ROM_3B, MAC_3B)).delay == 2
    assert bench.answer(message(BOOTCODE, MAC_3B)).delay == 0
    assert bench.answer(message(EEPROM_4)).delay == 0
    assert bench.answer(message(ROM_3B, MAC_4)).delay == 0


@pytest.mark.parametrize(
    ("setting", "address", "boot"), [("wait", True, True), ("address", True, False), ("ignore", False, False)]
)
def test_an_unregistered_pi(setting: str, address: bool, boot: bool) -> None:
    bench = Bench(f"network: {{address: 10.77.0.1/24}}\nservices: {{dhcp: {{unregistered: {setting}}}}}\n")
    answer = bench.ask(message(EEPROM_4))
    assert (answer is not None) == address
    if answer:
        assert answer.address in bench.config.pool
        assert (codes(answer) >= BOOT_OPTIONS) == boot
    assert bench.events[0][1] is Stage.DISCOVER, "it is seen in any case"


@pytest.mark.parametrize(("setting", "address"), [("address", True), ("ignore", False)])
def test_a_stranger_never_gets_boot_files(setting: str, address: bool) -> None:
    bench = Bench(f"network: {{address: 10.77.0.1/24}}\nservices: {{dhcp: {{strangers: {setting}}}}}\n")
    pc = tuple(option for option in EEPROM_4 if option[0] != 97)  # a PC's PXE says the same as a Pi's but for this
    answer = bench.ask(message(pc, STRANGER))
    assert (answer is not None) == address
    if answer:
        assert not codes(answer) & BOOT_OPTIONS and answer.packet[108:236] == bytes(128)
    assert bench.events == []


def test_a_pi_with_another_makers_mac_is_known_by_option_97_or_by_configuration() -> None:
    bench = Bench()
    assert codes(bench.answer(message(EEPROM_4, STRANGER))) >= BOOT_OPTIONS
    extra = Bench("network: {address: 10.77.0.1/24}\nservices: {dhcp: {extra_ouis: ['00:16:3E']}}\n")
    assert codes(extra.answer(message(ROM_3B, STRANGER))) >= BOOT_OPTIONS


def test_an_old_eeprom_leaves_option_60_out_of_its_request() -> None:
    bench = Bench(nodes=[node()])
    bench.answer(message(EEPROM_4, xid=77))
    assert codes(bench.answer(request("10.77.0.11", xid=77))) >= {43, 60, 66}
    assert not codes(bench.answer(request("10.77.0.11", xid=78))) & BOOT_OPTIONS


def test_a_pi_that_was_registered_is_told_to_take_its_own_address() -> None:
    bench = Bench()
    old = bench.answer(message(LINUX)).address
    bench.answer(request(str(old)))
    bench.directory.nodes.append(node())
    for raw in (request(str(old), server=b""), message([(53, b"\x03")], ciaddr=old.packed)):
        assert bench.answer(raw).kind is Kind.NAK
    assert bench.answer(message(LINUX)).address == IPv4Address("10.77.0.11")
    assert [lease.address for lease in bench.book.all()] == [IPv4Address("10.77.0.11")], "the old one is free"


def test_renewing_and_coming_back_with_an_address() -> None:
    bench = Bench()
    address = bench.answer(message(LINUX)).address
    bench.answer(request(str(address)))
    bench.now += 6 * 3600
    renewed = bench.answer(message([(53, b"\x03"), (61, b"other")], ciaddr=address.packed))
    assert (renewed.kind, renewed.address, renewed.packet[12:16]) == (Kind.ACK, address, address.packed)
    lease = bench.book.get(MAC_4)
    assert lease is not None and lease.expires == bench.now + 12 * 3600
    assert bench.answer(request(str(address), server=b"")).kind is Kind.ACK
    assert bench.answer(request("10.77.0.77", server=b"")).kind is Kind.NAK, "not in the pool"
    assert bench.answer(request("192.0.2.1", server=b"")).kind is Kind.NAK, "not in the network"
    other = message(LINUX, "dc:a6:32:00:00:09")
    assert bench.answer(other).address != address
    assert bench.answer(request(str(address), mac="dc:a6:32:00:00:09")).kind is Kind.NAK, "somebody else's"


def test_a_lost_leases_file_changes_no_address() -> None:
    first, second = Bench(), Bench()
    address = first.answer(message(LINUX)).address
    assert second.answer(message(LINUX)).address == address, "the search begins at the MAC's own place"
    third = Bench()
    free = str(third.config.pool.last)
    assert third.answer(request(free, server=b"")).kind is Kind.ACK, "and what it still holds it may keep"


def test_a_stranger_that_takes_another_servers_offer_frees_ours() -> None:
    bench = Bench(OPEN)
    address = bench.answer(message(LINUX, STRANGER)).address
    lease = bench.book.get(STRANGER)
    assert lease is not None and lease.expires == bench.now + HOLD
    assert bench.ask(request("192.0.2.5", server=bytes([192, 0, 2, 1]), mac=STRANGER)) is None
    assert bench.book.free_for(MAC_4, address, bench.now + 1)
    assert set(bench.notices.foreign_servers) == {IPv4Address("192.0.2.1")}


def test_a_second_dhcp_server_is_warned_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    theirs = message([(53, b"\x02"), (54, bytes([10, 77, 0, 254]))], op=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            bench.now += 10
            assert bench.ask(theirs) is None
        assert sum("10.77.0.254" in record.message for record in caplog.records) == 1
        bench.now += 60
        bench.ask(theirs)
        assert len(caplog.records) == 2
    assert bench.policy.counters["foreign"] == 6
    bench.ask(message([(53, b"\x02"), (54, US)], op=2))
    assert set(bench.notices.foreign_servers) == {IPv4Address("10.77.0.254")}, "we are no second server"


def test_a_full_pool_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(TINY)
    macs = [f"dc:a6:32:00:00:0{number}" for number in range(3)]
    given = {bench.answer(message(EEPROM_4, mac)).address for mac in macs[:2]}
    assert given == {IPv4Address("10.77.0.200"), IPv4Address("10.77.0.201")}
    assert bench.ask(message(EEPROM_4, macs[2])) is None
    assert "widen it" in caplog.text and "10.77.0.200-10.77.0.201" in caplog.text
    assert bench.policy.counters["pool_full"] == 1
    assert bench.notes == [(macs[2], Sign.NO_ADDRESS, "10.77.0.200-10.77.0.201")]
    bench.now += 12 * 3600 + 1
    assert bench.answer(message(EEPROM_4, macs[2])).address in given, "what is over is given again"


def test_released_and_declined_addresses(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(TINY)
    address = bench.answer(message(LINUX)).address
    bench.ask(message([(53, b"\x07")], "dc:a6:32:00:00:01", ciaddr=address.packed))
    assert bench.book.get(MAC_4) is not None, "only the holder can release"
    bench.ask(message([(53, b"\x07")], ciaddr=address.packed))
    assert bench.book.get(MAC_4) is None
    address = bench.answer(message(LINUX)).address
    assert bench.ask(message([(53, b"\x04"), (50, address.packed)])) is None
    assert f"{address} in use" in caplog.text
    assert bench.answer(message(LINUX)).address != address
    bench.now += QUARANTINE + 1
    assert bench.book.free_for(MAC_4, address, bench.now)


def test_inform_gets_options_and_no_lease() -> None:
    bench = Bench(nodes=[node()])
    ack = bench.answer(message([(53, b"\x08")], ciaddr=bytes([10, 77, 0, 11])))
    assert ack.kind is Kind.ACK and ack.packet[16:20] == bytes(4) and codes(ack) == {53, 54, 1, 3, 6, 15}
    assert bench.book.all() == []
    assert bench.ask(message([(53, b"\x08")], STRANGER, ciaddr=bytes([10, 77, 0, 99]))) is None


def test_a_relay_of_our_network_is_answered_with_its_own_option() -> None:
    bench = Bench()
    relayed = message((*EEPROM_4, (82, b"\x01\x04eth7")), giaddr=bytes([10, 77, 0, 2]))
    answer = bench.answer(relayed)
    assert answer.packet[24:28] == bytes([10, 77, 0, 2])
    assert options_of(answer.packet)[-1] == (82, b"\x01\x04eth7")
    assert bench.ask(message(EEPROM_4, giaddr=bytes([192, 0, 2, 1]))) is None


def test_two_pis_with_one_mac_are_noticed() -> None:
    bench = Bench()
    bench.ask(message(EEPROM_4))
    other = tuple((97, GUID_4[:-1] + b"\x92") if option[0] == 97 else option for option in EEPROM_4)
    bench.now += 3
    bench.ask(message(other))
    discovers = [detail for _, stage, detail in bench.events if stage is Stage.DISCOVER]
    assert discovers == ["", "two Pis use this MAC: serials 91cdf03d and 92cdf03d"]
    assert bench.notes == [(MAC_4, Sign.SAME_MAC, "serials 91cdf03d and 92cdf03d")]


THEIRS = bytes([10, 77, 0, 254])


def test_another_servers_offer_to_a_pi_is_noted() -> None:
    bench = Bench()
    offer = [(53, b"\x02"), (54, THEIRS)]
    bench.ask(message(offer, MAC_4, op=2))
    assert bench.notes == [], "who it is for was not heard yet"
    bench.ask(message(EEPROM_4))
    bench.ask(message(offer, MAC_4, op=2))
    assert bench.notes == [(MAC_4, Sign.FOREIGN, "proxy 10.77.0.254")], "an offer without an address"
    bench.ask(message([(53, b"\x03"), (54, THEIRS), (50, bytes([10, 77, 0, 9])), EEPROM_4[-1]], MAC_4))
    assert bench.notes[1:] == [(MAC_4, Sign.FOREIGN, "taken 10.77.0.254")]
    bench.ask(message(offer, STRANGER, op=2))
    assert len(bench.notes) == 2


def test_the_signs_of_an_old_eeprom() -> None:
    bench = Bench()
    old = tuple((97, b"\0" + b"\x3d\xf0\xcd\x91" * 4) if option[0] == 97 else option for option in EEPROM_4)
    address = bench.answer(message(old)).address
    bare = [(53, b"\x03"), (54, US), (50, address.packed)]
    assert bench.answer(message(bare)).kind is Kind.ACK
    assert [(mac, sign) for mac, sign, _ in bench.notes] == [(MAC_4, Sign.OLD_EEPROM)] * 2
    new, pi3 = Bench(), Bench()
    new.ask(message(EEPROM_4))
    pi3.ask(message(BOOTCODE, MAC_3B))
    assert new.notes == pi3.notes == []


def test_a_fixed_address_and_ours_are_never_given_from_the_pool() -> None:
    bench = Bench(TINY, nodes=[node("dc:a6:32:00:00:aa", "10.77.0.200")])
    assert bench.answer(message(LINUX)).address == IPv4Address("10.77.0.201")
    assert bench.ask(message(LINUX, "dc:a6:32:00:00:01")) is None


def test_a_fixed_address_takes_itself_back() -> None:
    bench = Bench(TINY)
    holder = bench.answer(message(LINUX)).address
    bench.directory.nodes.append(node("dc:a6:32:00:00:aa", str(holder)))
    assert bench.answer(message(LINUX, "dc:a6:32:00:00:aa")).address == holder
    assert bench.book.get(MAC_4) is None
    assert bench.answer(message(LINUX)).address != holder


def test_leases_survive_in_dnsmasqs_format(tmp_path: Path) -> None:
    bench = Bench(nodes=[node()])
    bench.answer(message(LINUX))
    dirty = tuple((12, b"a b\n1 x\xff-") if option[0] == 12 else option for option in LINUX)
    pool = bench.answer(message(dirty, "dc:a6:32:00:00:01")).address
    file = tmp_path / "dhcp.leases"
    leases.write(file, bench.book.all())
    ends = int(bench.now) + 12 * 3600
    assert file.read_text().splitlines() == [
        f"{ends} {MAC_4} 10.77.0.11 rpi1 01:61:62:63:64:65:66",
        f"{ends} dc:a6:32:00:00:01 {pool} ab1x 01:61:62:63:64:65:66",
    ]
    again = Bench()
    again.book.load(leases.read(file).values(), again.now)
    assert again.answer(message(LINUX, "dc:a6:32:00:00:01")).address == pool
    assert not again.book.free_for("dc:a6:32:00:00:02", pool, again.now)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (policy, ratelimit):
        monkeypatch.setattr(module, "REMEMBERED", 100)
    bench = Bench(TINY)
    limit = RateLimit(20)
    for number in range(300):
        mac = f"dc:a6:32:00:{number >> 8:02x}:{number & 255:02x}"
        limit.allows(mac, bench.now)
        bench.ask(message(EEPROM_4, mac))
    assert len(limit._left) == len(bench.policy._seen) == 100
    assert len(bench.book.all()) == 2


def test_one_mac_is_limited_and_the_others_are_not() -> None:
    limit = RateLimit(20)
    assert [limit.allows("a", 100.0) for _ in range(25)] == [True] * 20 + [False] * 5
    assert limit.allows("b", 100.0)
    assert [limit.allows("a", 100.125) for _ in range(4)] == [True, True, False, False]


def test_a_flood_in_the_name_of_a_mac_leaves_it_its_share() -> None:
    limit = RateLimit(20)
    allowed = [limit.allows("flood", 1000 + number / 100) for number in range(1000)]
    assert 200 <= sum(allowed) <= 221
    assert any(allowed[500:510])
