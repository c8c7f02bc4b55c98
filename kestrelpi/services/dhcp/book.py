"""Who has which address: leases keyed on the MAC, addresses that are out of use, and choosing a free one.

Never keyed on a client-id: the stages of one boot send different ones, and the Pi would get a second address.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address

from kestrelpi.config import AddressRange
from kestrelpi.nodes.leases import Lease

QUARANTINE = 600.0
"""Seconds for which an address that a client declined, or that was found in use, is not given to anybody."""
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
        """When each can be used again; those that can be first stand first."""
        self._looked_at = 0
        """So many of the pool's first addresses are, or were, somebody's; the others may be free."""
        self._given_back: dict[IPv4Address, None] = {}
        """Of those, the ones that may be free again, by age."""
        self._ends: list[tuple[int, str]] = []
        """A heap of when leases end, and whose; also of some that don't any more."""
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
        while len(self._by_mac) >= MOST and (over := self._longest_over(now)):
            self.release(over.mac, over.address)
        return len(self._by_mac) >= MOST

    def grant(self, mac: str, address: IPv4Address, expires: float, hostname: str = "", client_id: str = "") -> None:
        """Promise `address` to `mac` until the Unix time `expires`. Whoever else had it has it no longer."""
        holder = self._holder.get(address)
        if holder is not None and holder != mac:
            self._by_mac.pop(holder, None)
        old = self._by_mac.get(mac)
        if old and old.address != address:
            self.release(mac, old.address)
        self._put(Lease(int(expires), mac, address, hostname, client_id))

    def _put(self, lease: Lease) -> None:
        self._by_mac[lease.mac] = lease
        self._holder[lease.address] = lease.mac
        if lease.expires:
            heapq.heappush(self._ends, (lease.expires, lease.mac))
        if len(self._ends) > 2 * len(self._by_mac) + 1000:  # most are of leases that were renewed
            self._ends = [(one.expires, one.mac) for one in self._by_mac.values() if one.expires]
            heapq.heapify(self._ends)
        self.changed = True

    def release(self, mac: str, address: IPv4Address) -> bool:
        """Give an address back; False when this MAC doesn't have it."""
        lease = self._by_mac.get(mac)
        if lease is None or lease.address != address:
            return False
        del self._by_mac[mac]
        self._holder.pop(address, None)
        self._give_back(address)
        self.changed = True
        return True

    def decline(self, mac: str, address: IPv4Address, now: float) -> bool:
        """Somebody else uses the address: keep it out of use for a while. False when this MAC doesn't have it."""
        if not self.release(mac, address):
            return False
        self._keep_out_of_use(address, now)
        return True

    def in_use(self, mac: str, address: IPv4Address, now: float) -> None:
        """Somebody else was found to use the address that `mac` was to have: nobody gets it for a while."""
        self.release(mac, address)
        self._keep_out_of_use(address, now)

    def _give_back(self, address: IPv4Address) -> None:
        """Remember that it may be free again; where the addresses are another server's, most are not of our pool."""
        if address in self._pool:
            self._given_back[address] = None

    def _keep_out_of_use(self, address: IPv4Address, now: float) -> None:
        self._quarantine.pop(address, None)
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

        The first free one to be tried follows from the MAC, so that a Pi finds its address again even when the leases
        file was lost.
        """
        known = self._by_mac.get(mac)
        place = self._pool.first + zlib.crc32(mac.encode()) % len(self._pool)
        for address in (known.address if known else None, wish, place):
            if address is not None and self.free_for(mac, address, now):
                return address
        return self._free(now)

    def _free(self, now: float) -> IPv4Address | None:
        """An address that nobody had yet, else one that was given back, else the one whose lease is over for longest.

        What is found not to be free is not looked at again before somebody gives it back. So however large the pool is
        and however few of it are free, a flood of made-up MACs costs no search through all of it, which would keep
        everybody else waiting.
        """
        while self._quarantine and self._quarantine[first := next(iter(self._quarantine))] <= now:
            del self._quarantine[first]
            self._give_back(first)
        while self._looked_at < len(self._pool):
            address = self._pool.first + self._looked_at
            if self._unheld(address, now):
                return address
            self._looked_at += 1
        while self._given_back:
            address = next(iter(self._given_back))
            if self._unheld(address, now):
                return address
            del self._given_back[address]
        while over := self._longest_over(now):
            if self.free_for("", over.address, now):
                return over.address
            self.release(over.mac, over.address)  # somebody's fixed address by now
        return None

    def _unheld(self, address: IPv4Address, now: float) -> bool:
        """Whether an address is free and nobody had it before, who may come back."""
        if address in self._holder or address in self._quarantine:
            return False
        if self._reserved(address):
            self._keep_out_of_use(address, now)  # it will be looked at again: its node may be removed
            return False
        return True

    def _longest_over(self, now: float) -> Lease | None:
        """The lease that ended first of all that are over."""
        while self._ends and self._ends[0][0] <= now:
            expires, mac = self._ends[0]
            lease = self._by_mac.get(mac)
            if lease and lease.expires == expires:
                return lease
            heapq.heappop(self._ends)
        return None
