"""A room of Pis that is switched on at once, in simulated time: real timers, real decisions, a link that is shared.

What is real: the DHCP messages of each model, the server's rules (`dhcp.policy`), the admission (`services.admission`),
the models' timers and time limits (`lab.profiles`). What is a model: the link (`lab.fairlink`), how fast a board can
take files (`room.RATES`), how long a kernel needs until it asks for its root (`room.KERNEL`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kestrelpi.lab.fairlink import FairLink
from kestrelpi.lab.identity import PiSpec, pi_spec
from kestrelpi.lab.room import FILES, ROOT, SPREAD, Board, Room
from kestrelpi.services.turns import CARRIED, GIGABIT


@dataclass(frozen=True)
class Outcome:
    """What became of one Pi; seconds since the power came."""

    model: str
    ready: float | None
    tries: int
    late_files: int
    """Files that missed their time limit."""
    cut: bool
    """Whether one of its transfers ended with the server's process."""


@dataclass(frozen=True)
class Result:
    """What became of the room."""

    outcomes: Sequence[Outcome]
    needed: float
    """Bytes of all boots, were nothing loaded twice."""
    carried: float
    link: float
    held: int

    @property
    def booted(self) -> int:
        return sum(one.ready is not None for one in self.outcomes)

    @property
    def last(self) -> float:
        """Seconds to the last Pi that is up."""
        return max((one.ready for one in self.outcomes if one.ready is not None), default=0.0)

    @property
    def least(self) -> float:
        """Seconds that the link needs at least."""
        return self.needed / self.link

    @property
    def ratio(self) -> float:
        return self.last / self.least


MIXED = ("3B", "3B+", "4", "4", "4-old", "CM4", "5", "5")
"""The models of a mixed room, over and over: a quarter are Pi 3."""


def storm(
    count: int,
    *,
    held: bool = True,
    models: Sequence[str] = MIXED,
    mbit: int = GIGABIT,
    killed: tuple[float, float] | None = None,
) -> Result:
    """Switch on `count` Pis at once on a link of `mbit` Mbit/s. The same arguments give the same room.

    `held`: with turns; `killed`: when the server's process dies, and the seconds until it runs again.
    """
    dice = random.Random(count)
    pis = [pi_of(number, models[number % len(models)]) for number in range(count)]
    boards = [Board(pi, dice.uniform(0, SPREAD), dice.uniform(*ROOT)) for pi in pis]
    carrier = FairLink(mbit * CARRIED)
    room = Room(boards, carrier, held)
    if killed:
        room.kill(*killed)
    room.run()
    return Result(
        [Outcome(one.pi.model, one.ready, one.tries, one.late_files, one.cut) for one in boards],
        sum(one.root + sum(FILES[one.pi.profile.family]) for one in boards),
        carrier.carried,
        carrier.capacity,
        room.turns.counters["held"] if room.turns else 0,
    )


def pi_of(number: int, model: str) -> PiSpec:
    """A Pi with a MAC of its own among 65,536."""
    pi = pi_spec("storm", number, model)
    return replace(pi, mac=f"{pi.mac[:8]}:00:{number >> 8:02x}:{number & 255:02x}")
