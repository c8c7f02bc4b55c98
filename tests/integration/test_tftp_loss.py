"""TFTP over a line that loses packets and delays them, with the lab's boot loaders as clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kestrelpi.lab.bad_line import boot, write_files
from kestrelpi.lab.tftp import Result
from tests.integration.test_tftp import Running, serving, until

CLIENTS = 32


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    write_files(tmp_path)
    with serving(tmp_path) as server:
        yield server


def test_every_client_on_a_bad_line_ends_and_no_data_is_sent_twice_without_a_timeout(running: Running) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        ended = list(pool.map(lambda number: boot(number, running.port), range(CLIENTS)))
    counted: Counter[str] = Counter()
    for host, transfers in ended:
        counted += host.counted
        for name, transfer in transfers.items():
            assert transfer.result is Result.GOT, f"{name}: {transfer.result} after {transfer.seconds:.0f} s"
            assert transfer.content == (running.folder / name).read_bytes()
    until(lambda: running.server.active == 0, "the end of all transfers", seconds=30)
    assert counted["lost"] > 100 and counted["twice"] > 1000, "the line was bad"
    resent = running.server.counters["resent"]
    assert 0 < counted["repeated"] <= resent, "the Sorcerer's Apprentice (RFC 1123 section 4.2.3.1)"
    assert running.kinds()["timeout"] == 0
