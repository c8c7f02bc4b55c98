"""A link that many share fairly, in simulated time: no packets, only rates."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Class:
    """Flows that can go equally fast: all have the same rate at any time, so one sum serves all of them."""

    rate: float = 0.0
    served: float = 0.0
    """Bytes that a flow which was there from the beginning would have."""
    count: int = 0
    ends: list[tuple[float, int]] = field(default_factory=list)
    """Heap of: `served` at which a flow is done, its number."""


class FairLink:
    """Max-min fair: nobody gets more than he can take, and what he leaves is shared among the others."""

    def __init__(self, capacity: float) -> None:
        """`capacity`: bytes a second."""
        self.capacity = capacity
        self.carried = 0.0
        self._at = 0.0
        self._classes: dict[float, _Class] = {}
        self._flows: dict[int, tuple[float, float, Callable[[], None]]] = {}
        """Number → what it can take, `served` at its end, whom to tell."""
        self._next = 0

    def add(self, size: float, most: float, done: Callable[[], None], now: float) -> int:
        """Begin a flow of `size` bytes that takes at most `most` bytes a second; its number."""
        self._advance(now)
        group = self._classes.setdefault(most, _Class())
        self._next += 1
        end = group.served + size
        heapq.heappush(group.ends, (end, self._next))
        group.count += 1
        self._flows[self._next] = (most, end, done)
        self._share()
        return self._next

    def cut(self, number: int, now: float) -> None:
        """End a flow that isn't done."""
        self._advance(now)
        most, _, _ = self._flows.pop(number)
        self._classes[most].count -= 1
        self._share()

    def next_end(self) -> float:
        """When the next flow is done, if nothing changes; infinite: there is none."""
        times = [self._at + (end - group.served) / group.rate for group, end in self._firsts()]
        return min(times, default=float("inf"))

    def finish(self, now: float) -> list[Callable[[], None]]:
        """Time has come to `now`: whom to tell."""
        self._advance(now)
        told = []
        for group, end in list(self._firsts()):
            while group.ends and group.ends[0][0] <= group.served + 1e-6 * max(1.0, end):
                number = heapq.heappop(group.ends)[1]
                if number in self._flows:
                    told.append(self._flows.pop(number)[2])
                    group.count -= 1
        self._share()
        return told

    def _firsts(self) -> list[tuple[_Class, float]]:
        """Each class that has flows, and where its first one ends."""
        found = []
        for group in self._classes.values():
            while group.ends and group.ends[0][1] not in self._flows:
                heapq.heappop(group.ends)
            if group.ends:
                found.append((group, group.ends[0][0]))
        return found

    def _advance(self, now: float) -> None:
        for group in self._classes.values():
            group.served += group.rate * (now - self._at)
            self.carried += group.count * group.rate * (now - self._at)
        self._at = now

    def _share(self) -> None:
        left, flows = self.capacity, len(self._flows)
        for most, group in sorted(self._classes.items()):
            if group.count:
                group.rate = min(most, left / flows)
                left -= group.rate * group.count
                flows -= group.count
