"""Metrics in Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Written here, because it is 30 lines and the usual library's licence (Apache-2.0) doesn't go with GPL-2.0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from kestrelpi.nodes.boots import Boot, Stage
from kestrelpi.services.turns import Turns

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
"""Seconds from a boot's beginning to a stage: a Pi's firmware takes 3 to 10, a boot 30 to 90."""
DHCP_DROPPED = ("malformed", "limited", "held", "ignored", "refused", "pool_full", "unsent")
DHCP_RECEIVED = ("discover", "offer", "request", "decline", "ack", "nak", "release", "inform")
TFTP_ENDED = ("done", "aborted", "timeout", "missing")
TFTP_DROPPED = ("refused", "malformed")
STORM = ("let_in", "held", "held_root", "late", "gave_up")
DNS_DROPPED = ("refused", "malformed", "unanswered")

Sample = tuple[str, Mapping[str, str], float]
"""What is appended to the name, labels, value."""


@dataclass(frozen=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for suffix, labels, value in self.samples:
            inner = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
            yield f"{self.name}{suffix}{f'{{{inner}}}' if inner else ''} {number(value)}"


def escape(text: str) -> str:
    """A label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """A value: whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(value)


def render(families: Iterable[Family]) -> str:
    """The whole page."""
    return "".join(f"{line}\n" for family in families for line in family.lines())


@dataclass
class Histogram:
    """Seconds in BUCKETS."""

    counts: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    """Of each bucket, without those below it."""
    sum: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self.count += 1
        index = bisect_left(BUCKETS, seconds)
        if index < len(BUCKETS):
            self.counts[index] += 1

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        for limit, count in zip(BUCKETS, accumulate(self.counts), strict=True):
            yield "_bucket", {**labels, "le": str(limit)}, count
        yield "_bucket", {**labels, "le": "+Inf"}, self.count
        yield "_sum", labels, round(self.sum, 3)
        yield "_count", labels, self.count


@dataclass(frozen=True)
class Sources:
    """What the services count themselves."""

    version: str
    started: float
    """Unix time."""
    dhcp: Mapping[str, int]
    dns: Mapping[str, int]
    tftp: Mapping[str, int]
    stages: Sequence[str]
    """Of each registered node: the stage of its last boot; empty: never seen."""
    foreign: int
    """Other DHCP servers that were heard."""
    turns: Turns | None = None


class Metrics:
    """Counts boots; renders these and what the services count. All counters begin anew with the daemon."""

    def __init__(self) -> None:
        self.begun = 0
        self.results: Counter[str] = Counter()
        self.seconds: defaultdict[Stage, Histogram] = defaultdict(Histogram)

    def reached(self, boot: Boot, stage: Stage) -> None:
        """A boot reached a stage for the first time."""
        if len(boot.stages) == 1:
            self.begun += 1
        if stage in (Stage.READY, Stage.FAILED):
            self.results[stage.value] += 1
        self.seconds[stage].add(boot.stages[stage])

    def text(self, sources: Sources) -> str:
        """The page."""
        return render([*_service(sources), *_transport(sources), *_turns(sources.turns), *self._boots()])

    def _boots(self) -> Iterator[Family]:
        yield Family("kestrelpi_boots_begun_total", "counter", "Boots of Pis that began.", [("", {}, self.begun)])
        yield Family(
            "kestrelpi_boots_total",
            "counter",
            "Boots by result.",
            [("", {"result": result}, self.results[result]) for result in (Stage.READY.value, Stage.FAILED.value)],
        )
        yield Family(
            "kestrelpi_boot_stage_seconds",
            "histogram",
            "Seconds from the beginning of a boot to a stage.",
            [
                sample
                for stage, histogram in sorted(self.seconds.items(), key=lambda item: item[0].rank)
                for sample in histogram.samples({"stage": stage.value})
            ],
        )


def _service(sources: Sources) -> Iterator[Family]:
    yield Family("kestrelpi_info", "gauge", "The version that runs.", [("", {"version": sources.version}, 1)])
    yield Family(
        "kestrelpi_start_time_seconds", "gauge", "When the daemon was started.", [("", {}, round(sources.started, 3))]
    )
    counted = Counter(sources.stages)
    stages = ["", *(stage.value for stage in Stage)]
    yield Family(
        "kestrelpi_nodes",
        "gauge",
        "Registered nodes by the stage of their last boot.",
        [("", {"stage": stage or "never-seen"}, counted[stage]) for stage in stages],
    )
    yield Family(
        "kestrelpi_foreign_dhcp_servers", "gauge", "Other DHCP servers that were heard.", [("", {}, sources.foreign)]
    )


def _transport(sources: Sources) -> Iterator[Family]:
    dhcp, dns, tftp = sources.dhcp, sources.dns, sources.tftp
    yield _by("kestrelpi_dhcp_received_total", "DHCP messages that were heard.", "type", dhcp, DHCP_RECEIVED)
    yield _one("kestrelpi_dhcp_sent_total", "DHCP replies.", dhcp.get("sent", 0))
    yield _by("kestrelpi_dhcp_dropped_total", "DHCP messages without a reply.", "reason", dhcp, DHCP_DROPPED)
    yield _one("kestrelpi_dhcp_in_use_total", "Addresses that somebody else was found to use.", dhcp.get("in_use", 0))
    yield _one("kestrelpi_dhcp_duplicate_mac_total", "DISCOVERs of another board.", dhcp.get("duplicate_mac", 0))
    yield _one("kestrelpi_dhcp_foreign_total", "DHCP messages of other servers.", dhcp.get("foreign", 0))
    yield _one("kestrelpi_tftp_started_total", "TFTP transfers that began.", tftp.get("started", 0))
    yield _by("kestrelpi_tftp_transfers_total", "TFTP requests by result.", "result", tftp, TFTP_ENDED)
    yield _by("kestrelpi_tftp_dropped_total", "TFTP requests not served.", "reason", tftp, TFTP_DROPPED)
    yield _one("kestrelpi_tftp_repeated_total", "TFTP requests that were under way already.", tftp.get("repeated", 0))
    yield _one("kestrelpi_tftp_bytes_total", "Bytes of files that were acknowledged.", tftp.get("bytes", 0))
    yield _one("kestrelpi_tftp_resent_total", "TFTP packets sent again after a timeout.", tftp.get("resent", 0))
    yield Family("kestrelpi_tftp_active", "gauge", "TFTP transfers under way.", [("", {}, tftp.get("active", 0))])
    yield Family(
        "kestrelpi_tftp_memory_bytes", "gauge", "Memory in prepared packets.", [("", {}, tftp.get("memory", 0))]
    )
    yield _by("kestrelpi_dns_queries_total", "DNS queries.", "result", dns, ("answered", "forwarded"))
    yield _by("kestrelpi_dns_dropped_total", "DNS queries without an answer.", "reason", dns, DNS_DROPPED)


def _turns(turns: Turns | None) -> Iterator[Family]:
    if turns is None:
        return
    now, counters = turns.standing, turns.counters
    yield Family(
        "kestrelpi_storm_pis",
        "gauge",
        "Pis that load, or wait for their turn.",
        [
            ("", {"stage": stage, "state": state}, count)
            for stage, state, count in (
                ("files", "loading", now.files),
                ("files", "waiting", now.waiting_files),
                ("root", "loading", now.root),
                ("root", "waiting", now.waiting_root),
            )
        ],
    )
    yield _by("kestrelpi_storm_total", "Pis by what became of their turn.", "result", counters, STORM)
    yield Family(
        "kestrelpi_storm_link_bytes", "gauge", "Bytes a second that the link is counted for.", [("", {}, now.link)]
    )


def _by(name: str, text: str, label: str, counters: Mapping[str, int], keys: Sequence[str]) -> Family:
    """A counter with one label; each value of it from the start, so that a rate has a zero to begin at."""
    return Family(name, "counter", text, [("", {label: key}, counters.get(key, 0)) for key in keys])


def _one(name: str, text: str, value: float) -> Family:
    return Family(name, "counter", text, [("", {}, value)])
