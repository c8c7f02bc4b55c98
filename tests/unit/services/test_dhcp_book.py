"""Choosing addresses: all of a pool are found, the same one again after the leases were lost, and quickly."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from kestrelpi.config.values import AddressRange
from kestrelpi.services.dhcp.book import LeaseBook, coprime


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


def test_a_pool_that_is_nearly_full_is_not_gone_through_one_by_one() -> None:
    looked = []

    def reserved(address: IPv4Address) -> bool:
        looked.append(address)
        return False

    first, size = IPv4Address("10.77.0.0"), 4096
    leases = LeaseBook(AddressRange(first, first + size - 1), reserved)
    for number in range(size * 95 // 100):
        address = leases.choose(mac(number), None, 1000.0)
        assert address is not None
        leases.grant(mac(number), address, 9999.0)
    looked.clear()
    for number in range(100):
        leases.choose(mac(100_000 + number), None, 1000.0)
    assert len(looked) < 100 * 60, "20 places of 4096 are expected where one of 20 is free"


@pytest.mark.parametrize("size", [1, 2, 10, 97, 4096, 32767])
def test_multiples_go_through_all_places(size: int) -> None:
    for wish in (0, 1, 2, size - 1, size, 12345):
        stride = coprime(wish, size)
        assert len({step * stride % size for step in range(size)}) == size
