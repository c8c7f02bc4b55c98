"""TFTP beside dnsmasq and tftpd-hpa: lock-step clients fetch three files of 14.6 MB in all, blksize 1468.

The clients are one process, the same for each server, on loopback in the network namespace that `namespace` makes.
`benches/boot_services.py` runs it.
"""

from __future__ import annotations

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

from kestrelpi import run
from kestrelpi.services.tftp import FolderSource, Limits, TftpProcess

FILES = {"start4.elf": 800_000, "initramfs.img": 2_600_000, "vmlinuz": 11_200_000}
"""The boot set that was measured: a cut-down start file, the native initramfs, a gzipped kernel."""
PORT = 69
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
        answered()
        try:
            yield ours.pids
        finally:
            ours.stop()
        return
    process = run.start([*THEIRS[name], str(folder)])
    answered()
    try:
        yield [process.pid]
    finally:
        run.stop(process)


def answered() -> None:
    """Wait until the server answers: what its start costs isn't measured."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        for _ in range(100):
            sock.sendto(b"\0\1nothing\0octet\0", ("127.0.0.1", PORT))
            try:
                sock.recv(2048)
            except TimeoutError:
                continue
            time.sleep(0.2)
            return
    raise SystemExit("the server doesn't answer")


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


@contextmanager
def folder_of_files() -> Iterator[Path]:
    """What a Pi loads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, size in FILES.items():
            (folder / file).write_bytes(os.urandom(size))
        yield folder


def namespace(argv: list[str]) -> None:
    """Go on in a network namespace of our own, as root: `argv` is run again in it, and then this returns."""
    if os.environ.get("KESTRELPI_BENCH") != "inside":
        root = str(Path(__file__).resolve().parent.parent)
        run.replace(["unshare", "--net", sys.executable, *argv], {"KESTRELPI_BENCH": "inside", "PYTHONPATH": root})
    for words in (
        "ip link set lo up",
        # in.tftpd resolves no address in a namespace that has only loopback
        "ip link add outside type veth peer name other",
        "ip address add 192.0.2.1/24 dev outside",
        "ip link set outside up",
    ):
        run.run(words.split())
