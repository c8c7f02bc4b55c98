"""Rooms that are switched on at once, in simulated time, with the real rules of DHCP and admission."""

from __future__ import annotations

import pytest

from kestrelpi.lab.fairlink import FairLink
from kestrelpi.lab.storm import MIXED, storm


def ended(link: FairLink, until: float) -> list[tuple[float, str]]:
    """Let time pass; when which flow ended."""
    done: list[str] = []
    found = []
    for name, size, most in (("slow", 100.0, 10.0), ("quick", 300.0, 1000.0), ("other", 600.0, 1000.0)):
        link.add(size, most, lambda name=name: done.append(name), 0.0)  # type: ignore[misc]
    while link.next_end() <= until:
        at = link.next_end()
        for told in link.finish(at):
            told()
        found += [(round(at, 6), name) for name in done]
        done.clear()
    return found


def test_a_link_is_shared_fairly_and_nothing_of_it_is_wasted() -> None:
    link = FairLink(110.0)
    assert ended(link, 100) == [(6.0, "quick"), (9.0, "other"), (10.0, "slow")]
    assert link.carried == pytest.approx(1000.0)


def test_a_flow_that_is_cut_leaves_its_share() -> None:
    link = FairLink(100.0)
    done: list[str] = []
    first = link.add(1000.0, 1000.0, lambda: done.append("first"), 0.0)
    link.add(400.0, 1000.0, lambda: done.append("second"), 0.0)
    link.cut(first, 4.0)
    assert link.next_end() == pytest.approx(6.0)
    for told in link.finish(6.0):
        told()
    assert done == ["second"] and link.carried == pytest.approx(600.0)


@pytest.mark.parametrize("count", [4, 16])
def test_a_small_room_is_not_delayed(count: int) -> None:
    with_turns, without = storm(count), storm(count, held=False)
    assert [one.ready for one in with_turns.outcomes] == [one.ready for one in without.outcomes]
    assert with_turns.held == 0 and with_turns.booted == count


@pytest.mark.parametrize("count", [64, 256])
def test_a_mixed_room_is_up_when_the_link_could_carry_it(count: int) -> None:
    result = storm(count)
    assert result.booted == count
    assert result.last <= 1.2 * result.least
    assert all(one.tries == 1 for one in result.outcomes), "within what each boot loader waits"
    assert result.carried == pytest.approx(result.needed, rel=0.01)


def test_on_a_slow_link_all_boot_and_no_file_misses_its_time_limit() -> None:
    """64 Pis on 100 Mbit/s load as 640 do on 1 Gbit/s."""
    result = storm(64, mbit=100)
    assert result.booted == 64 and result.last <= 1.2 * result.least
    assert not any(one.late_files for one in result.outcomes)
    assert [one.tries for one in result.outcomes if one.model.startswith("3")] == [1] * 16, "it has only one"


def test_a_room_of_pi_3_which_try_only_once() -> None:
    result = storm(50, models=("3B",), mbit=100)
    assert result.booted == 50 and not any(one.late_files for one in result.outcomes)
    assert storm(50, models=("3B",), mbit=100, held=False).booted == 0


@pytest.mark.parametrize(("count", "killed"), [(200, (9.0, 4.0)), (150, (20.0, 5.0))])
def test_a_server_that_dies_in_the_middle_loses_no_pi_that_its_timers_let_live(
    count: int, killed: tuple[float, float]
) -> None:
    """A Pi 3 whose transfer ends with the server's process has no second try; every other Pi comes up."""
    result = storm(count, killed=killed)
    assert any(one.cut for one in result.outcomes)
    for one in result.outcomes:
        assert one.ready is not None or (one.cut and one.model.startswith("3")), one
        assert one.late_files <= one.cut


def test_the_room_is_mixed() -> None:
    assert {one.model for one in storm(len(MIXED)).outcomes} == set(MIXED)
