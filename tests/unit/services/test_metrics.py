"""Prometheus' text format, read by a parser that knows nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kestrelpi.nodes.boots import BootLog, Stage
from kestrelpi.services import metrics
from kestrelpi.services.admission import EEPROM
from kestrelpi.services.metrics import BUCKETS, Family, Metrics, Sources, escape, number, render
from kestrelpi.services.turns import CARRIED, Turns
from tests.prometheus import parse

MAC = "dc:a6:32:00:00:01"


def sources(**given: Mapping[str, int]) -> Sources:
    empty: Mapping[str, int] = {}
    return Sources(
        "0.1",
        1_800_000_000.25,
        given.get("dhcp", empty),
        given.get("dns", empty),
        given.get("tftp", empty),
        ["ready", "ready", ""],
        1,
    )


def test_what_services_count() -> None:
    page = parse(
        Metrics().text(
            sources(
                dhcp={"discover": 7, "sent": 6, "limited": 2},
                tftp={"done": 20, "missing": 3, "bytes": 14_600_000, "active": 2, "refused": 1},
                dns={"answered": 5},
            )
        )
    )
    assert page.value("kestrelpi_dhcp_received_total", type="discover") == 7
    assert page.value("kestrelpi_dhcp_received_total", type="request") == 0
    assert page.value("kestrelpi_dhcp_dropped_total", reason="limited") == 2
    assert page.value("kestrelpi_dhcp_sent_total") == 6
    assert page.value("kestrelpi_tftp_transfers_total", result="missing") == 3
    assert page.value("kestrelpi_tftp_dropped_total", reason="refused") == 1
    assert page.value("kestrelpi_tftp_bytes_total") == 14_600_000
    assert page.value("kestrelpi_dns_queries_total", result="answered") == 5
    assert page.value("kestrelpi_nodes", stage="ready") == 2
    assert page.value("kestrelpi_nodes", stage="never-seen") == 1
    assert page.value("kestrelpi_start_time_seconds") == 1_800_000_000.25
    assert page.kinds["kestrelpi_tftp_active"] == "gauge"


def test_boots_by_result_and_their_seconds(tmp_path: Path) -> None:
    metrics = Metrics()
    log = BootLog(tmp_path, metrics.reached)
    for start, last in ((1000, Stage.READY), (2000, Stage.FAILED), (3000, Stage.KERNEL)):
        log.record(MAC, Stage.DISCOVER, start)
        log.record(MAC, Stage.KERNEL, start + 7)
        log.record(MAC, last, start + 40)
    page = parse(metrics.text(sources()))
    assert page.value("kestrelpi_boots_begun_total") == 3
    assert page.value("kestrelpi_boots_total", result="ready") == 1
    assert page.value("kestrelpi_boots_total", result="failed") == 1
    name = "kestrelpi_boot_stage_seconds"
    assert page.value(f"{name}_count", stage="kernel") == 3
    assert page.value(f"{name}_sum", stage="kernel") == 21
    assert page.value(f"{name}_bucket", stage="kernel", le="5") == 0
    assert page.value(f"{name}_bucket", stage="kernel", le="10") == 3
    assert page.value(f"{name}_bucket", stage="ready", le="30") == 0
    assert page.value(f"{name}_bucket", stage="ready", le="+Inf") == 1
    buckets = [page.value(f"{name}_bucket", stage="ready", le=str(limit)) for limit in BUCKETS]
    assert buckets == sorted(buckets), "they are cumulative"


def test_labels_and_numbers() -> None:
    hostile = 'a"b\\c\nd'
    text = render([Family("x", "gauge", "help", [("", {"l": hostile}, 0.5)])])
    assert parse(text).value("x", l=hostile) == 0.5
    assert text.count("\n") == 3
    assert escape(hostile) == 'a\\"b\\\\c\\nd'
    assert [number(3.0), number(0.25)] == ["3", "0.25"]


@pytest.mark.parametrize("line", ["x{} 1", "x 1 2 3", "1x 2", 'x{l="a} 1', "x", "x one"])
def test_the_parser_refuses_what_is_no_sample(line: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(line)):
        parse(f"# HELP x y\n# TYPE x gauge\n{line}\n")


def test_who_loads_and_who_waits() -> None:
    assert "kestrelpi_storm" not in Metrics().text(sources())
    now = 0.0
    turns = Turns(lambda: 1000 * CARRIED, lambda: now)
    now = 1000.0
    for last in range(130):
        turns.ask(f"dc:a6:33:00:00:{last:02x}", EEPROM, 1)
    turns.root(MAC)
    page = parse(Metrics().text(replace(sources(), turns=turns)))
    assert page.value("kestrelpi_storm_pis", stage="files", state="loading") == 126
    assert page.value("kestrelpi_storm_pis", stage="files", state="waiting") == 4
    assert page.value("kestrelpi_storm_pis", stage="root", state="waiting") == 1
    assert page.value("kestrelpi_storm_total", result="let_in") == 126
    assert page.value("kestrelpi_storm_total", result="held") == 4
    assert page.value("kestrelpi_storm_link_bytes") == 118e6


def counted() -> list[tuple[str, str]]:
    """Service and name of every counter that stands in its code."""
    folder = Path(metrics.__file__).parent
    texts = {name: "".join(one.read_text() for one in (folder / name).glob("*.py")) for name in ("dhcp", "dns", "tftp")}
    found = {(name, key) for name, text in texts.items() for key in re.findall(r'counters\["(\w+)"\]', text)}
    assert len(found) > 15
    return sorted(found)


@pytest.mark.parametrize(("service", "counter"), counted())
def test_whatever_a_service_counts_can_be_seen(service: str, counter: str) -> None:
    assert re.search(r" 7777$", Metrics().text(sources(**{service: {counter: 7777}})), re.MULTILINE)
