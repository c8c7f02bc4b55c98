"""The boot services beside dnsmasq and tftpd-hpa: TFTP, also on a bad line, DHCP, DNS, rooms switched on at once, and
10,000 registered nodes; one table of ratios.

    python benches/boot_services.py [--clients 8,32,128,256,1000] [--rounds 1] [--only tftp,loss,dhcp,dns,storm,fleet]
                                    [--keep FILE.json] [--plot FILE.svg]

As root, in network namespaces of its own. --keep adds to what earlier runs measured, and prints all of it; --plot draws
the seconds to the last client of TFTP. A ratio is the median of those of the rounds, each of two measurements that
follow each other. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import discover
import fleet
import loss
import names
import tftp
from chart import chart

from kestrelpi.files import write_whole
from kestrelpi.lab.storm import storm

PARTS = ("tftp", "loss", "dhcp", "dns", "storm", "fleet")
ROOMS = (64, 256, 1000)
GIGABIT = 118e6
"""Bytes of files a second that a link of 1 Gbit/s carries."""
SERVERS = ("ours", "dnsmasq", "tftpd-hpa")
Values = dict[str, list[float]]
"""What was measured, by server, a number for each round."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="8,32,128,256,1000")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of our TFTP server")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...")
    parser.add_argument("--keep", type=Path, metavar="FILE.json")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    tftp.namespace([str(Path(__file__).resolve()), *sys.argv[1:]])
    counts = [int(one) for one in options.clients.split(",")]
    table = Table(options.keep)
    parts = options.only.split(",")
    if "tftp" in parts:
        transfers(table, counts, options.rounds, options.workers)
    if "loss" in parts:
        bad_line(table, options.rounds)
    if "dhcp" in parts:
        addresses(table, options.rounds)
    if "dns" in parts:
        questions(table)
    if "storm" in parts:
        rooms(table)
    if "fleet" in parts:
        many_nodes(table)
    table.show()
    if options.plot:
        write_whole(options.plot, plot(table))


class Table:
    """What was measured so far, also in earlier runs that kept it in the same file."""

    def __init__(self, keep: Path | None) -> None:
        self.keep = keep
        self.rows: dict[str, Values] = json.loads(keep.read_text()) if keep and keep.exists() else {}

    def add(self, what: str, server: str, value: float) -> None:
        """One more round."""
        self.rows.setdefault(what, {}).setdefault(server, []).append(value)
        if self.keep:
            write_whole(self.keep, json.dumps(self.rows, indent=1) + "\n")

    def median(self, what: str, server: str) -> float | None:
        values = self.rows.get(what, {}).get(server)
        return statistics.median(values) if values else None

    def ratio(self, what: str, other: str) -> float | None:
        """Of ours to another server's."""
        row = self.rows[what]
        pairs = zip(row.get("ours", ()), row.get(other, ()), strict=False)
        found = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(found) if found else None

    def show(self) -> None:
        """As Markdown."""
        print("\n| what | ours | dnsmasq | tftpd-hpa | ours to dnsmasq | to tftpd-hpa |\n|---|---|---|---|---|---|")
        for what in self.rows:
            cells = [plain(self.median(what, server)) for server in SERVERS]
            ratios = [plain(self.ratio(what, other), 2) for other in SERVERS[1:]]
            print(f"| {what} | {' | '.join(cells + ratios)} |")


def plain(value: float | None, digits: int = 3) -> str:
    """A number as people write it, empty for none."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" if digits < 3 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def transfers(table: Table, counts: Sequence[int], rounds: int, workers: int) -> None:
    """TFTP, each server in turn."""
    with tftp.folder_of_files() as folder:
        for count in counts:
            for server in in_turn(SERVERS, rounds):
                row = tftp.measure(server, folder, count, workers)
                print(f"{clock()} TFTP {count:4} {server:10} {said(row)}", flush=True)
                record(table, count, server, row)


def record(table: Table, count: int, server: str, row: dict[str, float]) -> None:
    begin = f"TFTP, {count:,} clients: "
    table.add(begin + "MB/s", server, row["MB/s"])
    if server != "tftpd-hpa":  # its processes, one a file, are nobody's when they end: their time can't be seen
        table.add(begin + "processor time, s", server, row["cpu"])
    table.add(begin + "seconds to the last", server, row["last"])
    table.add(begin + "the last to the median one", server, row["last/median"])
    table.add(begin + "failed", server, row["failed"])


def bad_line(table: Table, rounds: int) -> None:
    """TFTP with loss and delay, each server in turn."""
    for server in in_turn(SERVERS, rounds):
        row = loss.measure(server)
        print(f"{clock()} TFTP on a bad line, {server:10} {said(row)}", flush=True)
        for what, value in row.items():
            table.add(f"TFTP on a bad line, {loss.CLIENTS} clients: {what}", server, value)


def addresses(table: Table, rounds: int) -> None:
    """DHCP, both servers in turn."""
    for room in discover.ROOMS:
        for server in in_turn(SERVERS[:2], rounds):
            found = discover.measured(server, room)
            print(f"{clock()} DHCP {room}, {server}: {asdict(found)}", flush=True)
            begin = f"DHCP, {found.pis:,} Pis, {room}: "
            table.add(begin + "p99, ms", server, found.p99)
            table.add(begin + "seconds until all have an address", server, found.last)
            table.add(begin + "addresses", server, found.addresses)


def questions(table: Table) -> None:
    """DNS: one row, whose rounds are its own."""
    for name, rounds in names.compared().items():
        for one in rounds:
            table.add("DNS, questions a second", name, one.a_second)
            table.add("DNS, processor time a question, µs", name, one.cpu)
    print(f"{clock()} DNS", flush=True)


def rooms(table: Table) -> None:
    """Rooms of mixed models on 1 Gbit/s, simulated, with turns; nobody else has them."""
    for count in ROOMS:
        found = storm(count)
        print(f"{clock()} storm of {count}: {found.booted} up, the last after {found.last:.0f} s", flush=True)
        table.add(f"storm of {count:,}, simulated: Pis that are up", "ours", found.booted)
        table.add(f"storm of {count:,}, simulated: the last one to bytes ÷ link", "ours", found.ratio)


def many_nodes(table: Table) -> None:
    """What a large registry costs; nobody else has one."""
    for what, value in fleet.measured().items():
        print(f"{clock()} {fleet.NODES:,} nodes, {what}: {value:.3g}", flush=True)
        table.add(f"{fleet.NODES:,} nodes: {what}", "ours", value)


def in_turn(servers: Sequence[str], rounds: int) -> Iterator[str]:
    """Each server in each round, every other round backwards: none is always the one after the pause."""
    for number in range(rounds):
        yield from servers[:: -1 if number % 2 else 1]


def said(row: Mapping[str, float]) -> str:
    """What was measured, on a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in row.items())


def clock() -> str:
    """The time and the load, before what was measured."""
    return f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}"


def plot(table: Table) -> str:
    """Seconds to the last of so many clients, where all had their files."""
    series: dict[str, list[tuple[float, float]]] = {}
    for server in SERVERS:
        points = []
        for what in table.rows:
            begin, _, rest = what.partition(": ")
            seconds = table.median(what, server)
            if rest == "seconds to the last" and seconds is not None and not table.median(f"{begin}: failed", server):
                points.append((float(begin.split()[1].replace(",", "")), seconds))
        series["kestrelpi" if server == "ours" else server] = sorted(points)
    counts = sorted({count for points in series.values() for count, _ in points})
    link = [(count, count * sum(tftp.FILES.values()) / GIGABIT) for count in counts]
    title = "Seconds to the last of so many Pis"
    drawn = {name: points for name, points in series.items() if points}
    return chart(title, "Pis that fetch 14.6 MB at once", "s", drawn, ("1 Gbit/s", link))


if __name__ == "__main__":
    main()
