"""Who has which address: leases keyed on the MAC, addresses that are out of use, and choosing a free one.

Never keyed on a client-id: the stages of one boot send different ones, and the Pi would get a second address.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address

from kestrelpi.config import AddressRange
from kestrelpi.nodes.leases import Lease

QUARANTINE = 600.0
"""Seconds for which an address that a client declined, or that was found in use, is not given to anybody."""
SWEEP = 1.0
"""Seconds between two searches for expired leases in a full pool."""

MOST = 16384
"""MACs that are noted at most where the addresses are another server's."""


class LeaseBook:
    """The leases in memory. `reserved` says whether an address is somebody's fixed one or ours."""

    def __init__(self, pool: AddressRange, reserved: Callable[[IPv4Address], bool]) -> None:
        self._pool = pool
        self._reserved = reserved
        self._by_mac: dict[str, Lease] = {}
        self._holder: dict[IPv4Address, str] = {}
        self._quarantine: dict[IPv4Address, float] = {}
        self._swept = float("-inf")
        self.changed = False
        """Since it was last set to False by whoever writes the file."""

    def load(self, leases: Iterable[Lease], now: float) -> None:
        """Take over what a file says and is not over yet."""
        for lease in leases:
            if not lease.expired(now):
                self._put(lease)
        self.changed = False

    def all(self) -> list[Lease]:
        """Every lease, for the file."""
        return list(self._by_mac.values())

    def get(self, mac: str) -> Lease | None:
        """The lease of a MAC, over or not."""
        return self._by_mac.get(mac)

    def full(self, now: float) -> bool:
        """Whether so many MACs are known that no more should be, apart from the pool: anybody can make some up."""
        if len(self._by_mac) >= MOST:
            for lease in [lease for lease in self._by_mac.values() if lease.expired(now)]:
                self.release(lease.mac, lease.address)
        return len(self._by_mac) >= MOST

    def grant(self, mac: str, address: IPv4Address, expires: float, hostname: str = "", client_id: str = "") -> None:
        """Promise `address` to `mac` until the Unix time `expires`. Whoever else had it has it no longer."""
        holder = self._holder.get(address)
        if holder is not None and holder != mac:
            self._by_mac.pop(holder, None)
        old = self._by_mac.get(mac)
        if old and old.address != address:
            self._holder.pop(old.address, None)
        self._put(Lease(int(expires), mac, address, hostname, client_id))

    def _put(self, lease: Lease) -> None:
        self._by_mac[lease.mac] = lease
        self._holder[lease.address] = lease.mac
        self.changed = True

    def release(self, mac: str, address: IPv4Address) -> bool:
        """Give an address back; False when this MAC doesn't have it."""
        lease = self._by_mac.get(mac)
        if lease is None or lease.address != address:
            return False
        del self._by_mac[mac]
        self._holder.pop(address, None)
        self.changed = True
        return True

    def decline(self, mac: str, address: IPv4Address, now: float) -> bool:
        """Somebody else uses the address: keep it out of use for a while. False when this MAC doesn't have it."""
        if not self.release(mac, address):
            return False
        self._quarantine[address] = now + QUARANTINE
        return True

    def in_use(self, mac: str, address: IPv4Address, now: float) -> None:
        """Somebody else was found to use the address that `mac` was to have: nobody gets it for a while."""
        self.release(mac, address)
        self._quarantine[address] = now + QUARANTINE

    def expire_now(self, mac: str, now: float) -> None:
        """Let a promise end that the client didn't take, but remember which address it was."""
        lease = self._by_mac.get(mac)
        if lease:
            self._put(replace(lease, expires=int(now)))

    def free_for(self, mac: str, address: IPv4Address, now: float) -> bool:
        """Whether a client from the pool may have this address."""
        if address not in self._pool or self._reserved(address):
            return False
        if self._quarantine.get(address, 0.0) > now:
            return False
        holder = self._holder.get(address)
        return holder is None or holder == mac or self._by_mac[holder].expired(now)

    def choose(self, mac: str, wish: IPv4Address | None, now: float) -> IPv4Address | None:
        """An address of the pool: the one it has or had, the one it asks for, or a free one; None: the pool is full.

        The search begins at a place that follows from the MAC, so that a Pi finds its address again even when the
        leases file was lost. So do its steps: in a pool that is nearly full, neighbours are taken together, and to go
        through them one by one took 50 ms of every other client's time.
        """
        known = self._by_mac.get(mac)
        for address in (known.address if known else None, wish):
            if address is not None and self.free_for(mac, address, now):
                return address
        if now - self._swept < SWEEP:
            return None  # searched just now, and found nothing: a flood of new MACs must not cost a search each
        self._sweep(now)
        size = len(self._pool)
        number = zlib.crc32(mac.encode())
        stride = coprime(number // size, size)
        for step in range(size):
            address = self._pool.first + (number + step * stride) % size
            if self.free_for(mac, address, now):
                return address
        self._swept = now
        return None

    def _sweep(self, now: float) -> None:
        """Forget what is long over, when there is much of it."""
        self._quarantine = {address: end for address, end in self._quarantine.items() if end > now}
        if len(self._by_mac) > 2 * len(self._pool) + 1000:
            for lease in [lease for lease in self._by_mac.values() if lease.expired(now)]:
                self.release(lease.mac, lease.address)


def coprime(wish: int, size: int) -> int:
    """A number near `wish` whose multiples go through all of `size` places."""
    stride = wish % size or 1
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride
