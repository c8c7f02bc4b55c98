"""Which offers each model takes, and when it asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface

import pytest

from kestrelpi.lab import dhcp
from kestrelpi.lab.exchange import Exchange, Lease
from kestrelpi.lab.failure import BootFailure
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.profiles import BOOTCODE, PI3_XID, DhcpTraits
from tests.unit.lab.fakes import (
    ADDRESS,
    MENU,
    PI3,
    PI3_PLUS,
    PI4,
    PI5,
    SERVER,
    Answer,
    FakeHost,
    reply,
    server_with,
)

NO_SPACES = bytes.fromhex("0601030a04005058450914000011") + b"Raspberry Pi Boot" + b"\xff"
OTHER = IPv4Address("10.99.0.2")


def exchange(pi: PiSpec, host: FakeHost, traits: DhcpTraits | None = None, xid: int = PI3_XID) -> Lease:
    return Exchange(pi, traits or pi.profile.dhcp, xid, host, lambda stage, text: None).run()


def accepted(pi: PiSpec, options: Mapping[int, bytes]) -> IPv4Address | None:
    offer = dhcp.Reply(dhcp.OFFER, 1, ADDRESS, SERVER, "", {dhcp.SERVER: SERVER.packed, **options})
    return dhcp.boot_server(pi.profile.dhcp, offer)[0]


def test_the_menus_have_their_published_lengths() -> None:
    assert (len(NO_SPACES), len(MENU)) == (32, 35)


@pytest.mark.parametrize(
    ("options", "takers"),
    [
        ({43: MENU}, {"3B", "3B+", "4", "5"}),
        ({43: NO_SPACES}, {"3B+", "4", "5"}),
        ({43: b"Raspberry Pi Boot   "}, {"3B", "3B+", "4"}),  # raw, without sub-options
        ({43: NO_SPACES[3:]}, {"3B+", "4"}),  # without discovery control
        ({43: b"~~Raspberry Pi Boot~~"}, {"3B+", "4"}),
        ({66: b"10.99.0.1"}, {"4", "5"}),
        ({66: b"\x0a\x63\x00\x01"}, set()),  # binary
        ({66: b"10.99.0.1\0"}, {"4", "5"}),  # as dnsmasq sends it
        ({66: b"frontend"}, set()),
        ({66: b"10.99.0.999"}, set()),
        ({}, set()),  # siaddr alone
    ],
)
def test_offers(options: Mapping[int, bytes], takers: set[str]) -> None:
    assert {pi.model for pi in (PI3, PI3_PLUS, PI4, PI5) if accepted(pi, options) == SERVER} == takers
    assert {pi.model for pi in (PI3, PI3_PLUS, PI4, PI5) if accepted(pi, options) is not None} == takers


def test_option_66_goes_before_the_server_identifier() -> None:
    for pi in (PI3, PI4, PI5):
        assert accepted(pi, {43: MENU, 66: b"10.99.0.2"}) == OTHER


@pytest.mark.parametrize("pi", [PI4, PI5])
def test_an_eeprom_confirms_the_address(pi: PiSpec) -> None:
    host = FakeHost(server_with(pi, {43: MENU, 3: OTHER.packed}))
    lease = exchange(pi, host, xid=5)
    assert (lease.address, lease.server, lease.server_from) == (ADDRESS, SERVER, "option 54")
    kinds = [dhcp.parse_options(one[240:])[dhcp.TYPE] for one in host.wires[0].payloads]
    assert kinds == [b"\1", b"\3"]
    assert host.configured == [(IPv4Interface("10.99.0.100/24"), OTHER)]


@pytest.mark.parametrize("pi", [PI3, PI3_PLUS])
def test_a_pi_3_never_confirms(pi: PiSpec) -> None:
    host = FakeHost(server_with(pi, {43: MENU, 3: OTHER.packed}))
    exchange(pi, host)
    exchange(pi, host, BOOTCODE)
    assert [len(wire.sent) for wire in host.wires] == [1, 1]
    rom, bootcode = host.configured
    assert bootcode == (IPv4Interface("10.99.0.100/24"), OTHER)
    assert rom == ((IPv4Interface("10.99.0.100/32"), None) if pi is PI3 else bootcode)


def test_a_rom_discovers_five_times_five_seconds_apart() -> None:
    host = FakeHost()
    with pytest.raises(BootFailure, match="no answer to 5 DISCOVERs in 25 s") as failure:
        exchange(PI3, host)
    assert failure.value.stage == "discover"
    assert [at for at, _ in host.wires[0].sent] == [0, 5, 10, 15, 20]
    assert host.clock.now() == 25


def test_an_eeprom_discovers_every_four_seconds_for_45() -> None:
    host = FakeHost()
    with pytest.raises(BootFailure):
        exchange(PI4, host)
    assert [at for at, _ in host.wires[0].sent] == list(range(0, 45, 4))
    assert host.clock.now() == 45


def test_the_reason_says_what_the_offer_lacked() -> None:
    host = FakeHost(server_with(PI4, {66: SERVER.packed}))
    with pytest.raises(BootFailure, match=r"option 66 is b'\\nc\\x00\\x01', not an address as text") as failure:
        exchange(PI4, host)
    assert failure.value.stage == "offer"


def two_servers(pi: PiSpec, with_router: bool = True) -> Answer:
    """A router that knows nothing of booting, and a proxy that has no addresses."""

    def answer(payload: bytes) -> list[bytes]:
        xid = int.from_bytes(payload[4:8], "big")
        options = dhcp.parse_options(payload[240:])
        if options[dhcp.TYPE] == b"\3":
            assert options[dhcp.SERVER] == SERVER.packed, "confirmed to the server that offered the address"
            return [reply(pi, dhcp.ACK, xid, {})]
        proxy = reply(pi, dhcp.OFFER, xid, {43: MENU, 60: b"PXEClient"}, address=IPv4Address(0), server=OTHER)
        return [proxy, reply(pi, dhcp.OFFER, xid, {})] if with_router else [proxy]

    return answer


@pytest.mark.parametrize("pi", [PI3, PI4, PI5])
def test_address_and_boot_server_from_two_offers(pi: PiSpec) -> None:
    lease = exchange(pi, FakeHost(two_servers(pi)))
    assert (lease.address, lease.server, lease.server_from) == (ADDRESS, OTHER, "option 54")


def test_a_proxy_alone_has_no_address() -> None:
    with pytest.raises(BootFailure, match=r"a proxy named 10.99.0.2, but no server offered an address"):
        exchange(PI4, FakeHost(two_servers(PI4, with_router=False)))


def test_after_a_nak_it_starts_again() -> None:
    naks = [dhcp.NAK, dhcp.ACK]

    def answer(payload: bytes) -> list[bytes]:
        xid = int.from_bytes(payload[4:8], "big")
        discover = dhcp.parse_options(payload[240:])[dhcp.TYPE] == b"\1"
        return [reply(PI4, dhcp.OFFER if discover else naks.pop(0), xid, {66: b"10.99.0.1"})]

    assert exchange(PI4, FakeHost(answer)).discovers == 2


def test_replies_to_others_are_not_taken() -> None:
    def answer(payload: bytes) -> list[bytes]:
        return [reply(PI4, dhcp.OFFER, 99, {43: MENU}), reply(PI3, dhcp.OFFER, 5, {43: MENU}), b"\2" * 300, b""]

    with pytest.raises(BootFailure, match="no answer"):
        exchange(PI4, FakeHost(answer), xid=5)


def test_options_are_read_until_they_are_cut_off() -> None:
    assert dhcp.parse_options(bytes.fromhex("00003501010c01610c0162ff360101")) == {53: b"\1", 12: b"ab"}
    assert dhcp.parse_options(bytes.fromhex("3501010c056162")) == {53: b"\1"}
    assert dhcp.parse_options(b"\x0c") == {}
