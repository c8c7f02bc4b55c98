"""TFTP beside dnsmasq and tftpd-hpa: lock-step clients fetch three files of 14.6 MB in all, blksize 1468.

    python benches/boot_services.py [--clients 1,64,256] [--servers ours,dnsmasq,tftpd-hpa] [--workers 1] [--plot FILE]

Runs in a network namespace of its own, as root. The clients are one process, the same for each server. Nothing is
asserted: the table has MB/s, CPU seconds of the server, and the last client's time over the median one's. --plot draws
the seconds to the last client as an SVG.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import select
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chart import chart

from kestrelpi import run
from kestrelpi.services.tftp import FolderSource, Limits, TftpProcess

FILES = {"start4.elf": 800_000, "initramfs.img": 2_600_000, "vmlinuz": 11_200_000}
"""The boot set that was measured: a cut-down start file, the native initramfs, a gzipped kernel."""
PORT = 69
GIGABIT = 118e6
"""Bytes of files a second that a link of 1 Gbit/s carries."""
REPEAT = 2.0
"""Seconds after which a client repeats its last packet, as a Pi does."""
DNSMASQ = "dnsmasq --no-daemon --conf-file=/dev/null --port=0 --enable-tftp --user=root --tftp-max=2000"
THEIRS = {
    "dnsmasq": f"{DNSMASQ} --listen-address=127.0.0.1 --bind-interfaces --tftp-root".split(),
    "tftpd-hpa": f"in.tftpd -L -s -u root -a 127.0.0.1:{PORT}".split(),
}
"""Commands of the other servers; the folder comes last."""
SILENT = 30.0
"""Seconds without an answer after which the clients that are left have failed."""


@dataclass(eq=False)
class Client:
    """One Pi: the files in order, each on a new port."""

    sock: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    left: list[str] = field(default_factory=lambda: list(FILES))
    block: int = 0
    size: int = 0
    got: int = 0
    last: bytes = b""
    at: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    connected: bool = False


def fetch(count: int, server: str) -> tuple[list[float], int, int]:
    """`count` clients at once; seconds of each, repeated packets, and clients that failed."""
    poll = select.epoll()
    clients: dict[int, Client] = {}
    begun = time.monotonic()

    def ask(client: Client) -> None:
        client.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        clients[client.sock.fileno()] = client
        poll.register(client.sock, select.EPOLLIN)
        client.last = b"\0\1" + client.left[0].encode() + b"\0octet\0tsize\x000\0blksize\x001468\0"
        client.block, client.got, client.connected, client.at = 0, 0, False, time.monotonic()
        client.sock.sendto(client.last, (server, PORT))

    for _ in range(count):
        ask(Client())
    seconds: list[float] = []
    repeated = failed = 0
    looked = begun
    while clients:
        for fd, _ in poll.poll(0.5):
            client = clients[fd]
            if not client.connected:
                packet, peer = client.sock.recvfrom(2048)
                client.sock.connect(peer)
                client.connected = True
            else:
                try:
                    packet = client.sock.recv(2048)
                except OSError:
                    continue
            number = (packet[2] << 8) | packet[3]
            if packet[1] == 6:
                client.size = int(packet.split(b"tsize\0")[1].split(b"\0")[0])
                number = 0
            elif packet[1] != 3:
                failed += 1
                client.left = [""]
                client.size = client.got
                packet = b""
            elif number == (client.block + 1) & 0xFFFF:
                client.block += 1
                client.got += len(packet) - 4
            else:
                continue
            client.last = b"\0\4" + struct.pack("!H", number)
            client.at = client.heard = time.monotonic()
            client.sock.send(client.last)
            if packet[1:2] != b"\6" and len(packet) < 1472:
                failed += client.got != client.size
                poll.unregister(fd)
                client.sock.close()
                del clients[fd], client.left[0]
                if client.left:
                    ask(client)
                else:
                    seconds.append(time.monotonic() - begun)
        now = time.monotonic()
        if now - looked > 0.5:
            looked = now
            if all(now - client.heard > SILENT for client in clients.values()):
                return seconds, repeated, failed + len(clients)
            for client in clients.values():
                if now - client.at > REPEAT:
                    client.at = now
                    repeated += 1
                    address = None if client.connected else (server, PORT)
                    client.sock.sendto(client.last, address) if address else client.sock.send(client.last)
    return seconds, repeated, failed


def cpu_seconds(pids: list[int]) -> float:
    """Processor seconds of `pids` and their ended children (proc(5): utime, stime, cutime, cstime)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(name: str, folder: Path, workers: int) -> Iterator[list[int]]:
    """Run one server on 127.0.0.1:69; yields its process ids."""
    if name == "ours":
        ours = TftpProcess("127.0.0.1", PORT, partial(FolderSource, folder), workers, Limits(per_client=20000))
        ours.start()
        time.sleep(1)
        try:
            yield ours.pids
        finally:
            ours.stop()
        return
    process = run.start([*THEIRS[name], str(folder)])
    time.sleep(1)
    try:
        yield [process.pid]
    finally:
        run.stop(process)


def _client_process(count: int, result: multiprocessing.connection.Connection) -> None:
    before = time.process_time()
    result.send((fetch(count, "127.0.0.1"), time.process_time() - before))


def measure(name: str, folder: Path, count: int, workers: int) -> dict[str, float]:
    """One row: MB/s, CPU seconds of the server, last/median, repeats and failures."""
    with serving(name, folder, workers) as pids:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        before = cpu_seconds(pids)
        client = multiprocessing.get_context("spawn").Process(target=_client_process, args=(count, theirs))
        client.start()
        (seconds, repeated, failed), used = ours.recv()
        client.join()
        time.sleep(0.2)
        cpu = cpu_seconds(pids) - before
    done = sum(FILES.values()) * len(seconds) / 1e6
    return {
        "MB/s": done / max(seconds, default=1.0),
        "cpu": cpu,
        "client cpu": used,
        "last": max(seconds, default=0.0),
        "median": statistics.median(seconds or [0.0]),
        "last/median": max(seconds, default=0.0) / statistics.median(seconds or [1.0]),
        "repeats": repeated,
        "failed": failed,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,64,256")
    parser.add_argument("--servers", default="ours,dnsmasq,tftpd-hpa")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    if os.environ.get("KESTRELPI_BENCH") != "inside":
        run.replace(
            ["unshare", "--net", sys.executable, *sys.argv],
            {"KESTRELPI_BENCH": "inside", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )
    for argv in (
        "ip link set lo up",
        # in.tftpd resolves no address in a namespace that has only loopback
        "ip link add outside type veth peer name other",
        "ip address add 192.0.2.1/24 dev outside",
        "ip link set outside up",
    ):
        run.run(argv.split())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, size in FILES.items():
            (folder / file).write_bytes(os.urandom(size))
        counts = [int(one) for one in options.clients.split(",")]
        servers = options.servers.split(",")
        results = measured(folder, counts, servers, options.workers)
    if options.plot:
        link = [(count, count * sum(FILES.values()) / GIGABIT) for count in counts]
        lasts = {"kestrelpi" if name == "ours" else name: results.lasts(name) for name in servers}
        title = "Seconds to the last of so many Pis"
        options.plot.write_text(chart(title, "Pis that fetch 14.6 MB at once", "s", lasts, ("1 Gbit/s", link)))


@dataclass
class Results:
    """What was measured: rows by number of clients and server."""

    rows: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)

    def lasts(self, name: str) -> list[tuple[float, float]]:
        """Seconds to the last client by the number of clients, where all had their files."""
        return [(count, rows[name]["last"]) for count, rows in self.rows.items() if not rows[name]["failed"]]

    def ratios(self, name: str) -> list[tuple[int, str, str]]:
        """Clients, our speed to theirs, our processor time to theirs.

        tftpd-hpa's processes, one a file, are nobody's when they end: their time can't be seen.
        """
        found = []
        for count, rows in self.rows.items():
            ours, theirs = rows["ours"], rows[name]
            cpu = f"{ours['cpu'] / theirs['cpu']:.2f}" if theirs["cpu"] else "unknown"
            found.append((count, f"{ours['MB/s'] / theirs['MB/s']:.2f}", cpu))
        return found


def measured(folder: Path, counts: list[int], servers: list[str], workers: int) -> Results:
    """Measure each server with each number of clients, a printed row each; then print the ratios of ours to theirs."""
    print(
        f"{'clients':>7} {'server':10} {'MB/s':>7} {'CPU s':>7} {'median s':>9}"
        f" {'last/med':>9} {'repeats':>8} {'failed':>7}"
    )
    results = Results()
    for count in counts:
        results.rows[count] = {}
        for name in servers:
            row = results.rows[count][name] = measure(name, folder, count, workers)
            print(
                f"{count:7} {name:10} {row['MB/s']:7.1f} {row['cpu']:7.2f} {row['median']:9.2f}"
                f" {row['last/median']:9.3f} {row['repeats']:8.0f} {row['failed']:7.0f}",
                flush=True,
            )
    others = [name for name in servers if name != "ours"] if "ours" in servers else []
    if others:
        print(f"\n{'clients':>7} {'ours to':10} {'speed':>7} {'CPU':>8}")
    for name in others:
        for clients, speed, cpu in results.ratios(name):
            print(f"{clients:7} {name:10} {speed:>7} {cpu:>8}")
    return results


if __name__ == "__main__":
    main()
