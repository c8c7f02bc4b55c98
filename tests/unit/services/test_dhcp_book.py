"""Choosing addresses: all of a pool are found, the same one again after the leases were lost, and quickly."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from kestrelpi.config.values import AddressRange
from kestrelpi.services.dhcp.book import QUARANTINE, LeaseBook


def book(size: int) -> LeaseBook:
    first = IPv4Address("10.77.128.0")
    return LeaseBook(AddressRange(first, first + size - 1), lambda address: False)


def mac(number: int) -> str:
    return f"dc:a6:32:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


@pytest.mark.parametrize("size", [1, 2, 97, 100, 128, 254])
def test_each_address_of_a_pool_is_found_once(size: int) -> None:
    leases = book(size)
    for number in range(size):
        address = leases.choose(mac(number), None, 1000.0)
        assert address is not None
        leases.grant(mac(number), address, 9999.0)
    assert len({lease.address for lease in leases.all()}) == size
    assert leases.choose(mac(size), None, 1000.0) is None


def test_the_same_mac_gets_the_same_address_of_a_new_book() -> None:
    assert book(1000).choose(mac(7), None, 1.0) == book(1000).choose(mac(7), None, 1.0)
    assert len({book(1000).choose(mac(number), None, 1.0) for number in range(50)}) > 40


FIRST = IPv4Address("10.77.0.0")


def watched(size: int) -> tuple[LeaseBook, list[IPv4Address]]:
    """A book whose pool begins at FIRST, and the addresses that it looks at."""
    looked: list[IPv4Address] = []

    def reserved(address: IPv4Address) -> bool:
        looked.append(address)
        return False

    return LeaseBook(AddressRange(FIRST, FIRST + size - 1), reserved), looked


def test_a_pool_that_is_nearly_full_is_not_gone_through_one_by_one() -> None:
    size = 4096
    leases, looked = watched(size)
    for number in range(size * 95 // 100):
        address = leases.choose(mac(number), None, 1000.0)
        assert address is not None
        leases.grant(mac(number), address, 9999.0)
    looked.clear()
    for number in range(100):
        leases.choose(mac(100_000 + number), None, 1000.0)
    assert len(looked) < 100 * 60, "20 places of 4096 are expected where one of 20 is free"


def test_a_full_pool_is_not_searched() -> None:
    size = 4096
    leases, looked = watched(size)
    for number in range(size):
        leases.grant(mac(number), FIRST + number, 9999.0)
    assert leases.choose(mac(size), None, 1000.0) is None
    looked.clear()
    for number in range(size, size + 1000):
        assert leases.choose(mac(number), None, 1000.0) is None
        # One goes, another comes: there is one free address at a time.
        gone = leases.get(mac(number % 100))
        if gone:
            leases.release(gone.mac, gone.address)
            assert leases.choose(mac(2 * number), None, 1000.0) == gone.address
            leases.grant(mac(2 * number), gone.address, 9999.0)
    assert len(looked) < 8 * 1000


def test_whose_lease_is_over_for_longest_loses_its_address() -> None:
    leases = book(3)
    for number, expires in ((1, 50.0), (2, 30.0), (3, 40.0)):
        address = leases.choose(mac(number), None, 10.0)
        assert address
        leases.grant(mac(number), address, expires)
    had = {number: lease.address for number in (1, 2, 3) if (lease := leases.get(mac(number)))}
    assert leases.choose(mac(4), None, 20.0) is None
    leases.grant(mac(2), had[2], 70.0)  # it was renewed
    assert leases.choose(mac(4), None, 60.0) == had[3]
    leases.grant(mac(4), had[3], 99.0)
    assert leases.get(mac(3)) is None
    assert leases.choose(mac(1), None, 60.0) == had[1], "its own"
    assert leases.choose(mac(3), None, 60.0) == had[1]


def test_an_address_that_was_in_use_comes_back_later() -> None:
    leases = book(1)
    address = IPv4Address("10.77.128.0")
    leases.grant(mac(1), address, 9999.0)
    leases.in_use(mac(1), address, 0.0)
    assert leases.choose(mac(2), None, QUARANTINE - 1) is None
    assert leases.choose(mac(2), None, QUARANTINE + 1) == address


def test_an_address_is_free_again_when_its_node_was_removed() -> None:
    first = IPv4Address("10.77.0.100")
    taken = {first}
    leases = LeaseBook(AddressRange(first, first), lambda address: address in taken)
    assert leases.choose(mac(1), None, 0.0) is None
    taken.clear()
    assert leases.choose(mac(1), None, QUARANTINE + 1) == first


def test_addresses_of_another_server_take_no_memory_once_they_are_given_back() -> None:
    leases = book(10)
    for number in range(1000):
        leases.grant(mac(1), IPv4Address("10.99.0.0") + number, 9999.0)
    assert len(leases._given_back) == 0
    assert len(leases.all()) == 1


def test_renewals_take_no_memory() -> None:
    leases = book(10)
    for second in range(20_000):
        leases.grant(mac(1), IPv4Address("10.77.128.0"), 1000.0 + second)
    assert len(leases._ends) < 2000
    assert leases.choose(mac(2), None, 1.0) is not None
