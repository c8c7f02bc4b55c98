"""TFTP against foreign clients (tftp-hpa, curl, busybox) and hostile ones, over loopback."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.services.tftp import BootFile, FolderSource, Limits, TftpProcess, TftpServer, TransferEvent
from kestrelpi.services.tftp.session import Outcome
from tests import waiting

SIZES = (0, 1, 511, 512, 513, 1467, 1468, 1469, 1468 * 30, 512 * 40, 300_001)


@dataclass
class Running:
    """A server in a thread, and what it told."""

    port: int
    server: TftpServer
    folder: Path
    events: list[TransferEvent] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        return Counter(event.kind for event in self.events)

    def forget(self) -> None:
        """Start with no events, when all transfers have told their ends: a client ends before the server knows."""
        until(lambda: self.kinds()["start"] == sum(self.kinds()[end] for end in get_args(Outcome)), "the ends")
        self.events.clear()


until = partial(waiting.until, seconds=15, pause=0.02)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(folder: Path, limits: Limits | None = None) -> Iterator[Running]:
    """Serve `folder` on a free port of 127.0.0.1."""
    read, write = os.pipe()
    port = free_port()
    events: list[TransferEvent] = []
    server = TftpServer("127.0.0.1", port, FolderSource(folder), events.append, limits=limits or Limits())
    thread = threading.Thread(target=server.serve, args=(read,))
    thread.start()
    try:
        answer(port, b"\0\1no such file\0octet\0")  # it serves
        until(lambda: bool(events), "the first event")
        events.clear()
        yield Running(port, server, folder, events)
    finally:
        os.close(write)
        thread.join()
        os.close(read)


def answer(port: int, packet: bytes, seconds: float = 10) -> bytes:
    """The first reply to a packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            sock.sendto(packet, ("127.0.0.1", port))
            try:
                return sock.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
        raise AssertionError(f"no answer to {packet!r}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("outside")
    (base / "secret").write_text("not to be served")
    served = base / "served"
    (served / "91cdf03d").mkdir(parents=True)
    dice = random.Random(7)
    for size in SIZES:
        (served / f"size{size}").write_bytes(dice.randbytes(size))
    (served / "91cdf03d" / "config.txt").write_text("arm_64bit=1\n")
    return served


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    with serving(folder) as server:
        yield server


def tftp_hpa(port: int, path: str, out: Path, *options: str) -> None:
    run.run(["tftp", "-4", "-m", "binary", *options, "127.0.0.1", str(port), "-c", "get", path, out], timeout=60)


def curl(port: int, path: str, out: Path, *options: str) -> None:
    words: list[str | Path] = [
        "curl",
        "--silent",
        "--show-error",
        "--path-as-is",
        "--max-time",
        "30",
        *options,
        "--output",
        out,
    ]
    run.run([*words, f"tftp://127.0.0.1:{port}/{path}"])


def busybox(port: int, path: str, out: Path, *options: str) -> None:
    run.run(["busybox", "tftp", "-g", *options, "-r", path, "-l", out, "127.0.0.1", str(port)], timeout=60)


FETCHES = [
    (tftp_hpa, ()),
    (curl, ()),
    (curl, ("--tftp-blksize", "1468")),
    (curl, ("--tftp-blksize", "65464")),
    (curl, ("--tftp-no-options",)),
    (busybox, ("-b", "1024")),
    (busybox, ("-b", "1468")),
]


@pytest.mark.parametrize(("client", "options"), FETCHES)
def test_foreign_clients_get_every_byte(
    running: Running, tmp_path: Path, client: Callable[..., None], options: tuple[str, ...]
) -> None:
    for size in SIZES:
        if client is curl and size == 0 and "--tftp-no-options" not in options:
            continue  # curl 7.88 fails on an empty file after an OACK, from dnsmasq too (getpeername, exit status 71)
        client(running.port, f"size{size}", tmp_path / "got", *options)
        assert (tmp_path / "got").read_bytes() == (running.folder / f"size{size}").read_bytes()
        (tmp_path / "got").unlink()


def test_paths_as_pis_and_people_write_them(running: Running, tmp_path: Path) -> None:
    for path in (
        "91cdf03d/config.txt",
        "/91cdf03d/config.txt",
        "91cdf03d//config.txt",
        "//./91cdf03d/../91cdf03d/config.txt",
    ):
        tftp_hpa(running.port, path, tmp_path / "got")
        assert (tmp_path / "got").read_text() == "arm_64bit=1\n"


def test_a_missing_file_is_an_error_at_once(running: Running, tmp_path: Path) -> None:
    with pytest.raises(run.CommandFailed, match="ended with status 68"):  # CURLE_TFTP_NOTFOUND
        curl(running.port, "pieeprom.sig", tmp_path / "got")
    assert answer(running.port, b"\0\1start.elf\0octet\0tsize\x000\0")[:4] == b"\0\5\0\1"
    told = {("missing", "pieeprom.sig"), ("missing", "start.elf")}
    until(lambda: told <= {(event.kind, event.path) for event in running.events}, "the events")


@pytest.mark.parametrize("path", ["../secret", "/../secret", "91cdf03d/../../secret", "..//secret"])
def test_a_path_that_leaves_the_tree_is_refused(running: Running, tmp_path: Path, path: str) -> None:
    assert answer(running.port, b"\0\1" + path.encode() + b"\0octet\0")[:4] == b"\0\5\0\2"
    with pytest.raises(run.CommandFailed, match="ended with status 69"):  # CURLE_TFTP_PERM
        curl(running.port, path, tmp_path / "got")
    assert not (tmp_path / "got").exists() or (tmp_path / "got").read_bytes() == b""


def test_writing_netascii_and_mail_are_refused(running: Running) -> None:
    assert answer(running.port, b"\0\2new\0octet\0")[:4] == b"\0\5\0\2"
    assert answer(running.port, b"\0\1size1\0netascii\0")[:4] == b"\0\5\0\4"
    assert answer(running.port, b"\0\1size1\0mail\0")[:4] == b"\0\5\0\4"
    assert not (running.folder / "new").exists()


def test_early_terminate_is_a_normal_end(running: Running) -> None:
    """A Pi 4 probes: it takes the OACK's size, ends the transfer, and asks again."""
    running.forget()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(b"\0\1size44040\0octet\0tsize\x000\0blksize\x001468\0", ("127.0.0.1", running.port))
        oack, peer = sock.recvfrom(2048)
        assert oack == b"\0\6tsize\x0044040\0blksize\x001468\0"
        assert peer[1] != running.port, "each transfer has a port of its own"
        sock.sendto(b"\0\5\0\0Early terminate\0", peer)
        until(lambda: running.kinds()["aborted"] == 1, "the end")
    aborted = next(event for event in running.events if event.kind == "aborted")
    assert (aborted.detail, aborted.bytes, running.server.active) == ("0 Early terminate", 0, 0)


def test_clients_that_close_their_ports_are_gone_at_once_and_nobody_else_is(running: Running) -> None:
    """ICMP tells of it; it tells it to whoever uses the socket next, on which others have transfers too."""
    running.forget()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stays:
        stays.settimeout(5)
        stays.sendto(b"\0\1size300001\0octet\0", ("127.0.0.1", running.port))
        _, peer = stays.recvfrom(2048)
        for block in range(1, 41):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goes:
                goes.settimeout(5)
                goes.sendto(b"\0\1size300001\0octet\0", ("127.0.0.1", running.port))
                _, whom = goes.recvfrom(2048)
                goes.sendto(b"\0\4\0\1", whom)
            stays.sendto(struct.pack("!HH", 4, block), peer)
            assert stays.recvfrom(2048)[0][:4] == struct.pack("!HH", 3, block + 1)
        until(lambda: running.kinds()["aborted"] == 40, "the ends", seconds=3)
        assert {event.detail for event in running.events if event.kind == "aborted"} == {"the client closed its port"}
        assert running.server.active == 1
        stays.sendto(b"\0\5\0\0Early terminate\0", peer)
        until(lambda: running.server.active == 0, "the last one's end")


def test_a_repetition_to_a_closed_port_does_not_cost_the_next_client_his(running: Running) -> None:
    """All are due at once; the error that one's repetition meets waits at the socket when the next one's is sent."""
    running.forget()
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as goes:
            goes.settimeout(5)
            goes.sendto(b"\0\1size300001\0octet\0", ("127.0.0.1", running.port))
            goes.recvfrom(2048)
    until(lambda: running.kinds()["aborted"] == 20, "the ends")


def test_a_packet_shorter_than_an_ack_is_none_whatever_lay_in_its_place_before(running: Running) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        peers = []
        for sock in (one, two):
            sock.settimeout(5)
            sock.sendto(b"\0\1size300001\0octet\0", ("127.0.0.1", running.port))
            peers.append(sock.recvfrom(2048)[1])
        one.sendto(b"\0\4\0\1", peers[0])
        assert one.recvfrom(2048)[0][:4] == b"\0\3\0\2"
        two.sendto(b"\0", peers[1])  # the rest of the ACK is where that of the first one was taken
        two.settimeout(0.2)
        with pytest.raises(TimeoutError):
            two.recvfrom(2048)
        two.settimeout(5)
        two.sendto(b"\0\4\0\1", peers[1])
        assert two.recvfrom(2048)[0][:4] == b"\0\3\0\2"
        for sock, peer in zip((one, two), peers, strict=True):
            sock.sendto(b"\0\5\0\0Early terminate\0", peer)
    until(lambda: running.server.active == 0, "the ends")


def test_the_next_file_comes_from_another_port(running: Running) -> None:
    """A Pi 3's ROM uses one port for all its files: what is late of one must not be taken for the next one's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        peers = []
        for _ in range(3):
            sock.sendto(b"\0\1size1\0octet\0", ("127.0.0.1", running.port))
            packet, peer = sock.recvfrom(2048)
            assert packet[:4] == b"\0\3\0\1"
            sock.sendto(b"\0\4\0\1", peer)
            peers.append(peer)
    assert peers[0] != peers[1] != peers[2]
    until(lambda: running.server.active == 0, "the end")


def test_a_repeated_request_is_one_transfer(running: Running) -> None:
    running.forget()
    before = running.server.counters["repeated"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for _ in range(3):
            sock.sendto(b"\0\1size513\0octet\0", ("127.0.0.1", running.port))
        first, peer = sock.recvfrom(2048)
        sock.sendto(b"\0\4\0\1", peer)
        second, again = sock.recvfrom(2048)
        sock.sendto(b"\0\1size513\0octet\0", ("127.0.0.1", running.port))
        until(lambda: running.server.counters["repeated"] == before + 3, "the repeated requests")
        sock.sendto(b"\0\4\0\2", peer)
        until(lambda: running.kinds()["done"] == 1, "the end")
        assert (first[:4], second[:4], again) == (b"\0\3\0\1", b"\0\3\0\2", peer)
    assert running.kinds() == {"start": 1, "done": 1}


def test_block_numbers_roll_over(tmp_path: Path) -> None:
    """More than 65,535 blocks of 512 bytes: the number goes on at 0."""
    content = random.Random(8).randbytes(512 * 65_540 + 100)
    (tmp_path / "big").write_bytes(content)
    with serving(tmp_path) as running:
        tftp_hpa(running.port, "big", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content


def test_a_file_over_the_memory_budget_is_served_all_the_same(tmp_path: Path) -> None:
    content = random.Random(9).randbytes(200_000)
    (tmp_path / "big").write_bytes(content)
    with serving(tmp_path, Limits(memory=100_000)) as running:
        curl(running.port, "big", tmp_path / "got")
        assert running.server.memory == 0
    assert (tmp_path / "got").read_bytes() == content


def test_nonsense_is_counted_and_the_next_client_is_served(running: Running, tmp_path: Path) -> None:
    dice = random.Random(20261122)
    before = running.server.counters["malformed"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(2000):
            sock.sendto(b"\0\x07" + dice.randbytes(dice.randint(0, 1400)), ("127.0.0.1", running.port))
        until(lambda: running.server.counters["malformed"] == before + 2000, "all of it")
    tftp_hpa(running.port, "size513", tmp_path / "got")
    assert running.kinds()["malformed"] < 100, "the log is not for the hostile to fill"


def test_one_host_cannot_take_every_transfer(folder: Path) -> None:
    with (
        serving(folder, Limits(sessions=50, per_client=5)) as running,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        for sock in sockets:
            sock.bind(("127.0.0.2", 0))
            sock.sendto(b"\0\1size300001\0octet\0", ("127.0.0.1", running.port))
        until(lambda: running.server.counters["refused"] == 15, "the refusals")
        other.settimeout(5)
        other.sendto(b"\0\1size1\0octet\0", ("127.0.0.1", running.port))
        assert other.recv(2048)[:4] == b"\0\3\0\1"
        assert running.server.active == 6
        for sock in sockets:
            sock.close()


class Lossy:
    """A lock-step client that loses packets both ways and acknowledges too often."""

    def __init__(self, port: int, name: str, seed: int, loss: float) -> None:
        self.dice, self.loss, self.port = random.Random(seed), loss, port
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.request = b"\0\1" + name.encode() + b"\0octet\0tsize\x000\0blksize\x001468\0"
        self.peer: tuple[str, int] = ("127.0.0.1", port)
        self.last, self.at, self.got, self.block, self.done = b"", 0.0, b"", 0, False
        self.send(self.request)

    def send(self, packet: bytes, times: int = 1) -> None:
        self.last, self.at = packet, time.monotonic()
        for _ in range(times):
            if self.dice.random() >= self.loss:
                self.sock.sendto(packet, self.peer)

    def take(self) -> None:
        packet, peer = self.sock.recvfrom(2048)
        if self.dice.random() < self.loss:
            return
        self.peer = peer
        if packet[1] == 3 and packet[2:4] == struct.pack("!H", (self.block + 1) & 0xFFFF):
            self.block += 1
            self.got += packet[4:]
            self.done = len(packet) < 1472
        self.send(b"\0\4" + (packet[2:4] if packet[1] == 3 else b"\0\0"), 2)


def test_a_thousand_clients_that_lose_packets_all_end(tmp_path: Path) -> None:
    content = random.Random(10).randbytes(20_000)
    (tmp_path / "kernel").write_bytes(content)
    with serving(tmp_path) as running:
        clients = {
            client.sock.fileno(): client for client in (Lossy(running.port, "kernel", n, 0.05) for n in range(1000))
        }
        poll = select.epoll()
        for fd in clients:
            poll.register(fd, select.EPOLLIN)
        deadline = time.monotonic() + 120
        left = set(clients)
        while left:
            assert time.monotonic() < deadline, f"{len(left)} clients did not end"
            for fd, _ in poll.poll(0.1):
                clients[fd].take()
                if clients[fd].done:
                    left.discard(fd)
            for fd in left:
                if clients[fd].last == clients[fd].request and time.monotonic() - clients[fd].at > 2:
                    clients[fd].send(clients[fd].request)
        assert all(client.got == content for client in clients.values())
        for client in clients.values():
            client.sock.close()
        until(lambda: running.server.active == 0, "the end of all transfers", seconds=60)
        assert running.server.memory < 40_000, "one set of packets for all"
        assert running.kinds()["timeout"] == 0


@dataclass
class Reloading:
    """A source whose one file says how often it was reloaded."""

    times: int = 0

    def find(self, path: str, client: str) -> BootFile | None:
        content = f"reloaded {self.times}".encode()
        return BootFile(content.decode(), len(content), content)

    def reload(self) -> None:
        self.times += 1


def fetched(port: int) -> bytes:
    return answer(port, b"\0\1f\0octet\0")[4:]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_serve_reload_and_come_back(workers: int) -> None:
    port = free_port()
    process = TftpProcess("127.0.0.1", port, Reloading, workers)
    process.start()
    try:
        assert fetched(port) == b"reloaded 0"
        process.reload()
        until(lambda: {fetched(port) for _ in range(8)} == {b"reloaded 1"}, "the reload")
        told: list[TransferEvent] = []

        def events_arrived() -> bool:
            told.extend(process.read())
            return bool(told)

        until(events_arrived, "the events")
        assert {(event.kind, event.path, event.client) for event in told} >= {("start", "f", "127.0.0.1")}
        time.sleep(1.1)  # a worker that died younger than a second is not started again at once
        for pid in process.pids:
            os.kill(pid, signal.SIGKILL)
        old = process.pids

        def all_are_new() -> bool:
            process.tend()
            return not set(old) & set(process.pids)

        until(all_are_new, "the new workers")
        assert fetched(port) == b"reloaded 0"
        with pytest.raises(UserError, match=f"can't listen on 127.0.0.1:{port}"):
            TftpProcess("127.0.0.1", port, Reloading, workers).start()
    finally:
        process.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))  # the port is free again


PARENT = """
import sys, time
from functools import partial
from pathlib import Path
from kestrelpi.services.tftp import FolderSource, TftpProcess
if __name__ == "__main__":
    process = TftpProcess("127.0.0.1", int(sys.argv[1]), partial(FolderSource, Path("/nowhere")), 2)
    process.start()
    print(*process.pids, flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with (tmp_path / "log").open("wb") as log:
        parent = run.start(
            [sys.executable, script, str(free_port())], output=log.fileno(), env={"PYTHONPATH": str(Path.cwd())}
        )
    try:
        until(lambda: (tmp_path / "log").read_text().endswith("\n"), "the workers' start")
        pids = [int(word) for word in (tmp_path / "log").read_text().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not any(alive(pid) for pid in pids), "the workers' end")


def alive(pid: int) -> bool:
    """Whether a process runs (an ended one that nobody waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


DIES = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from kestrelpi.services.tftp import FolderSource, TftpProcess
if __name__ == "__main__":
    process = TftpProcess("127.0.0.1", int(sys.argv[1]), partial(FolderSource, Path(sys.argv[2])))
    process.start()
    print(process.pids[0], flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_transfer_that_runs_outlives_the_daemon_and_the_port_is_free(tmp_path: Path) -> None:
    content = random.Random(11).randbytes(512 * 20)
    (tmp_path / "kernel").write_bytes(content)
    (tmp_path / "dies.py").write_text(DIES)
    port = free_port()
    root = Path(__file__).resolve().parent.parent.parent
    argv = [sys.executable, str(tmp_path / "dies.py"), str(port), str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    ) as daemon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pi:  # fmt: skip
        assert daemon.stdin and daemon.stdout
        worker = int(daemon.stdout.readline())
        pi.settimeout(10)
        assert answer(port, b"\0\1none\0octet\0")[:4] == b"\0\5\0\1", "it serves"
        pi.sendto(b"\0\1kernel\0octet\0", ("127.0.0.1", port))
        packet, peer = pi.recvfrom(2048)
        daemon.stdin.write("\n")
        daemon.stdin.flush()
        assert daemon.wait(10) == -signal.SIGKILL

        until(lambda: bindable(port), "the end of the listener")
        got = b""
        while True:
            got += packet[4:]
            pi.sendto(b"\0\4" + packet[2:4], peer)
            if len(packet) < 516:
                break
            packet = pi.recv(2048)
        assert got == content
        until(lambda: ended(worker), "the worker's end")


def ended(pid: int) -> bool:
    """Whether a process is no more, or only waits for its parent to ask how it ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def bindable(port: int) -> bool:
    """Whether nobody has a UDP port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
