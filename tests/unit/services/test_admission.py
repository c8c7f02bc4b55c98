"""Whose turn it is: small rooms at once, large ones by what the link carries, nobody left to die."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kestrelpi.nodes.boots import Stage
from kestrelpi.services.admission import (
    AT_LEAST,
    BOOTCODE,
    EEPROM,
    FILES_SHARE,
    GONE,
    REMEMBERED,
    ROM,
    ROOT_SHARE,
    SILENT_FILES,
    SILENT_ROOT,
    UNHEARD,
    Admission,
    Patience,
)

GIGABIT = 118e6
PLACES = int(GIGABIT / FILES_SHARE)
"""Pis that may load files at once."""


@dataclass
class Bench:
    """An admission that has listened for long, and a clock."""

    link: float = GIGABIT
    now: float = 1000.0
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self.link, 0.0)

    def ask(self, number: int, patience: Patience = EEPROM, xid: int = 7, registered: bool = False) -> bool:
        return self.admission.ask(mac(number), patience, xid, self.now, registered)

    def turn(self) -> list[str]:
        return self.admission.turn(self.now)[0]

    def reach(self, number: int, stage: Stage) -> None:
        self.admission.reached(mac(number), stage, self.now)

    def fill(self) -> None:
        """Every place is taken by Pis that load, from number 10,000 on."""
        for number in range(10_000, 10_000 + PLACES):
            assert self.ask(number)
            self.reach(number, Stage.FIRMWARE)


def mac(number: int) -> str:
    return f"dc:a6:32:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


@pytest.mark.parametrize("link", [GIGABIT, GIGABIT / 10, GIGABIT / 100])
def test_a_small_room_never_waits(link: float) -> None:
    bench = Bench(link)
    assert all(bench.ask(number, ROM if number % 2 else EEPROM) for number in range(AT_LEAST))
    for number in range(AT_LEAST):
        bench.reach(number, Stage.FIRMWARE)
        bench.reach(number, Stage.KERNEL)
        assert bench.admission.root(mac(number), bench.now)
    assert bench.admission.counters["held"] == bench.admission.counters["held_root"] == 0


def test_as_many_load_as_the_link_carries() -> None:
    bench = Bench()
    assert [bench.ask(number) for number in range(PLACES + 5)] == [True] * PLACES + [False] * 5
    assert bench.admission.standing.files == PLACES and bench.admission.standing.waiting_files == 5
    assert bench.admission.waits(mac(PLACES)) and not bench.admission.waits(mac(0))
    bench.now += 1
    assert bench.turn() == [], "nobody is through yet"
    bench.reach(3, Stage.KERNEL)
    assert bench.turn() == [mac(PLACES)], "who waits longest"
    assert bench.ask(PLACES), "a DISCOVER that crossed its offer"
    bench.now += 4
    assert not bench.ask(PLACES + 4)


def test_a_pi_that_is_dead_otherwise_comes_before_all_others() -> None:
    bench = Bench()
    bench.fill()
    assert not bench.ask(1)
    bench.now += 3
    assert not bench.ask(2, ROM)
    bench.now += 1
    assert not bench.ask(3, ROM)
    for number in (10_000, 10_001):
        bench.reach(number, Stage.KERNEL)
    assert bench.turn() == [mac(2), mac(3)]


@pytest.mark.parametrize(("patience", "seconds"), [(ROM, 13.0), (BOOTCODE, 15.0), (EEPROM, 37.0)])
def test_who_cannot_wait_longer_is_let_in(patience: Patience, seconds: float) -> None:
    """A 3B's ROM asks at 0, 5, 10, 15 and 20 s; it needs an offer 2 s late, and one more try if that one is lost."""
    bench = Bench()
    bench.fill()
    begun = bench.now
    while bench.now - begun < seconds:
        if (bench.now - begun) % patience.interval == 0:
            assert not bench.ask(1, patience)
        assert bench.turn() == []
        bench.now += 0.25
        for number in range(10_000, 10_000 + PLACES):
            bench.reach(number, Stage.FIRMWARE)
    assert bench.turn() == [mac(1)]
    assert bench.admission.counters["late"] == 1


def crowd(bench: Bench) -> None:
    """More load than their files' time limits bear."""
    for number in range(20_000, 20_000 + 2 * PLACES):
        bench.reach(number, Stage.FIRMWARE)


def test_an_eeprom_waits_for_its_next_try_when_it_could_only_make_others_fail() -> None:
    bench = Bench()
    crowd(bench)
    assert not bench.ask(1)
    bench.now += 40
    crowd(bench)
    assert not bench.ask(1) and bench.turn() == []
    bench.now += 6
    crowd(bench)
    assert bench.turn() == [], "nobody listens between two tries"
    bench.now += 8
    crowd(bench)
    assert not bench.ask(1, xid=8), "the second try waits too"
    assert not bench.ask(2)
    for number in range(20_000, 20_000 + 2 * PLACES):
        bench.reach(number, Stage.KERNEL)
    assert bench.turn() == [mac(1), mac(2)], "it has waited longer"


def test_a_rom_then_loads_its_52_kilobytes_and_waits_again() -> None:
    bench = Bench()
    crowd(bench)
    assert not bench.ask(1, ROM)
    bench.now += 13
    crowd(bench)
    assert bench.turn() == [mac(1)]
    before = bench.admission.standing.files
    assert bench.ask(1, ROM), "its offer may be lost"
    bench.now += 2
    assert not bench.ask(1, BOOTCODE)
    bench.now += 15
    crowd(bench)
    assert bench.turn() == [mac(1)], "now it is dead otherwise"
    assert bench.admission.standing.files == before + 1


def test_what_is_heard_right_after_our_start_may_have_asked_for_long() -> None:
    bench = Bench()
    bench.admission = Admission(GIGABIT, bench.now - 3)
    bench.fill()
    assert bench.ask(1, ROM) and bench.ask(2, EEPROM)
    bench.now += 10
    assert not bench.ask(3, ROM), "this one began just now: it would have been heard before"


def test_pis_that_were_let_in_before_a_restart_count() -> None:
    bench = Bench()
    for number in range(PLACES):
        bench.reach(number, Stage.FIRMWARE)
    assert not bench.ask(5000)
    root = Bench()
    for number in range(int(GIGABIT / ROOT_SHARE)):
        root.reach(number, Stage.OVERLAY)
    assert not root.admission.root(mac(5000), root.now)


def test_a_pi_that_is_not_heard_of_any_more_frees_its_place() -> None:
    bench = Bench()
    for number in range(PLACES):
        bench.ask(number)
    bench.reach(0, Stage.FIRMWARE)
    assert not bench.ask(5000)
    bench.now += UNHEARD + 1
    assert bench.turn() == [mac(5000)]
    assert bench.admission.standing.files == 2, "the one that loads, and the new one"
    bench.now += SILENT_FILES
    bench.turn()
    assert bench.admission.standing.files == 0


def test_who_stops_asking_has_given_up() -> None:
    bench = Bench()
    crowd(bench)
    assert not bench.ask(1)
    bench.now += GONE
    crowd(bench)
    assert bench.admission.turn(bench.now) == ([], [])
    bench.now += 1
    assert bench.admission.turn(bench.now) == ([], [mac(1)])
    assert bench.admission.counters["gave_up"] == 1 and not bench.admission.waits(mac(1))


def test_gaps_within_one_try_do_not_begin_another() -> None:
    """DISCOVERs at 0, 8, 24 and 45 s, as one published log has them."""
    bench = Bench()
    bench.fill()
    for at in (0, 8, 24):
        bench.now = 1000.0 + at
        assert not bench.ask(1)
        for number in range(10_000, 10_000 + PLACES):
            bench.reach(number, Stage.FIRMWARE)
    bench.now = 1037.0
    assert bench.turn() == [mac(1)]


def test_roots_get_what_the_boot_loaders_leave() -> None:
    bench = Bench()
    places = int(GIGABIT / ROOT_SHARE)
    assert [bench.admission.root(mac(number), bench.now) for number in range(places + 2)] == [True] * places + [
        False
    ] * 2
    bench.reach(0, Stage.READY)
    assert not bench.admission.root(mac(places + 1), bench.now), "the other one came first"
    assert bench.admission.root(mac(places), bench.now)
    assert bench.admission.root(mac(places), bench.now), "its answer was lost"
    bench.now += SILENT_ROOT + 1
    bench.turn()
    assert bench.admission.standing.root == 0


def test_roots_wait_while_boot_loaders_do() -> None:
    bench = Bench()
    bench.fill()
    assert not bench.ask(1)
    for number in range(10_000, 10_060):
        bench.reach(number, Stage.KERNEL)
    assert sum(bench.admission.root(mac(number), bench.now) for number in range(10_000, 10_060)) == 5, "a tenth of it"


def test_a_node_that_waited_for_its_root_and_is_gone_keeps_nobody_back() -> None:
    bench = Bench()
    for number in range(int(GIGABIT / ROOT_SHARE)):
        bench.admission.root(mac(number), bench.now)
    assert not bench.admission.root(mac(900), bench.now)
    bench.now += 16
    assert not bench.admission.root(mac(901), bench.now)
    bench.turn()
    bench.reach(0, Stage.FAILED)
    assert bench.admission.root(mac(901), bench.now)


def test_what_is_remembered_is_bounded() -> None:
    bench = Bench()
    crowd(bench)
    for number in range(REMEMBERED + 100):
        bench.ask(100_000 + number)
    assert bench.admission.standing.waiting_files == REMEMBERED
    bench.now += GONE + 1
    bench.turn()
    standing = bench.admission.standing
    assert (standing.files, standing.waiting_files) == (0, 0)


def test_nodes_come_before_pis_that_nobody_knows() -> None:
    bench = Bench()
    bench.fill()
    flood = range(3000)
    assert not any(bench.ask(number, ROM if number % 2 else EEPROM) for number in flood)
    assert not bench.ask(5000, registered=True)
    bench.reach(10_000, Stage.KERNEL)
    assert bench.turn() == [mac(5000)]
    bench.reach(10_001, Stage.KERNEL)
    assert not bench.ask(5001), "others came first"
    assert bench.ask(5002, registered=True), "no other node waits"
