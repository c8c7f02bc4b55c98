"""When the TFTP server lets packets come together."""

from __future__ import annotations

import pytest

from kestrelpi.services.tftp.server import GATHER, GATHER_FROM, LONGEST_GATHER, gathering

GIGABIT = 1e9 / 8
BLOCK = 1468


@pytest.mark.parametrize("transfers", [0, 1, 8, GATHER_FROM - 1])
def test_a_few_pis_never_wait(transfers: int) -> None:
    assert gathering(transfers, 0) == 0


def test_while_many_have_a_packet_there_is_no_time_to_lose() -> None:
    assert gathering(256, 64) == 0
    assert gathering(256, 63) > 0


@pytest.mark.parametrize("transfers", [GATHER_FROM, 256, 10_000])
def test_a_full_link_loses_a_tenth_of_its_time_at_most(transfers: int) -> None:
    round_of_all = transfers * BLOCK / GIGABIT
    assert 0 < gathering(transfers, 0) < round_of_all / 10


def test_it_is_never_long() -> None:
    assert gathering(100_000, 0) == LONGEST_GATHER < 100_000 * GATHER
