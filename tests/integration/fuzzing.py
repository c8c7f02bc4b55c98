"""Malformed packets against a whole `kestrelpi serve`, and a well-behaved Pi beside them. A program:

    python tests/integration/fuzzing.py [--packets 1000000] [--seed N]

sends so many packets to each of DHCP, TFTP and DNS, which are made from the published captures of Pis by damaging
them, and lets TFTP clients ask and never answer, answer slowly, or vanish; then a fifth as many Pis that there are not
ask for addresses. Meanwhile a registered Pi gets its address, a file of 400 KB and names, again and again. Prints one
JSON document: what was sent, what the Pi got, tracebacks in the log, memory before, halfway and after, and when half
and all of the made-up Pis have asked (a table that is full has stopped growing by then). Runs in a network namespace of
its own, as root; a packet that finds the server's buffer full would prove nothing, so the sender waits until it has
been read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dnslib import EDNS0, DNSRecord

from kestrelpi import run
from kestrelpi.paths import Paths
from kestrelpi.pdeathsig import dies_with_us

PORTS = {"dhcp": 16067, "tftp": 16069, "dns": 16053, "http": 16080}
CONFIG = f"""\
network: {{address: 10.77.0.1/16}}
services:
  listen: 127.0.0.1
  dhcp: {{port: {PORTS["dhcp"]}, rom_delay: 0s}}
  tftp: {{port: {PORTS["tftp"]}}}
  dns: {{port: {PORTS["dns"]}}}
  http: {{port: {PORTS["http"]}}}
  nfs: {{backend: none}}
images: {{default: {{modules: []}}}}
"""
PI, SERIAL = "e4:5f:01:09:02:f7", "91cdf03d"
NODES = f'nodes:\n  rpi1: {{mac: "{PI}", serial: "{SERIAL}", model: 4B, group: rpi, address: 10.77.0.11}}\n'
GENERATION = "20261122-000000-12345678"
KERNEL = random.Random(1).randbytes(400_000)
AT_ONCE = 32
"""Packets that are sent before the server's buffer is looked at; it holds thousands."""
LINGERING = 200
"""TFTP clients that never answer, or slowly, at any time."""

# --- seeds: DHCP of docs/reference/network-boot.md's models, byte by byte as captured


def dhcp(mac: bytes, kind: int, wanted: bytes, guid: bytes, more: bytes = b"", xid: int = 0x26F30339) -> bytes:
    """A boot loader's message: the options in the order of the captures."""
    fixed = struct.pack("!4BI2H", 1, 1, 6, 0, xid, 0, 0) + bytes(16) + mac.ljust(16, b"\0") + bytes(192)
    options = bytes([53, 1, kind, 55, len(wanted)]) + wanted + b"\x5d\2\0\0\x5e\3\1\2\1"
    options += b"\x61\x11\0" + guid + b"\x3c\x20PXEClient:Arch:00000:UNDI:002001" + more + b"\xff"
    return fixed + b"\x63\x82\x53\x63" + options


ROM = bytes([43, 60, 67, *range(128, 136), 66])
EEPROM = bytes([1, 3, 43, 60, 66, 67, *range(128, 136)])
MAC = bytes.fromhex(PI.replace(":", ""))
GUID = bytes.fromhex("34695052 1431d000 010902f7 3df0cd91")
SERVER = socket.inet_aton("127.0.0.1")
SEEDS: dict[str, list[bytes]] = {
    "dhcp": [
        dhcp(bytes.fromhex("b827eb6c4c16"), 1, ROM, b"\x44" * 16),
        dhcp(bytes.fromhex("b827eb6c4c16"), 1, ROM + b"\1\3", b"\x16\x4c\x6c\xb6" * 4),
        dhcp(MAC, 1, EEPROM, GUID, xid=7),
        dhcp(MAC, 3, EEPROM, GUID, b"\x32\4\x0a\x4d\0\x0b\x36\4" + SERVER),
        dhcp(bytes.fromhex("2ccf67000001"), 4, EEPROM, b"5iPR" + GUID[4:], b"\x32\4\x0a\x4d\x80\1\x36\4" + SERVER),
        dhcp(bytes.fromhex("2ccf67000001"), 7, EEPROM, b"5iPR" + GUID[4:], b"\x36\4" + SERVER),
        dhcp(bytes.fromhex("00163e000001"), 8, EEPROM, bytes(16), b"\x0c\x04host\x3d\x07\x01\x00\x16\x3e\0\0\1"),
        dhcp(bytes.fromhex("00163e000001"), 2, EEPROM, GUID, b"\x36\4\x0a\x4d\0\2"),
    ],
    "tftp": [
        b"\0\1bootcode.bin\0octet\0",
        b"\0\1" + f"{SERIAL}/start4.elf".encode() + b"\0octet\0tsize\x000\0blksize\x001024\0",
        b"\0\1" + f"{SERIAL}//config.txt".encode() + b"\0octet\0tsize\x000\0blksize\x001468\0",
        b"\0\1dc-a6-32-01-36-c2/vmlinuz\0octet\0blksize\x001468\0windowsize\x0064\0timeout\x001\0",
        b"\0\1../../etc/passwd\0netascii\0",
        b"\0\2upload\0octet\0",
        b"\0\3\0\1" + bytes(512),
        b"\0\4\0\0",
        b"\0\5\0\0Early terminate\0",
        b"\0\6tsize\x000\0",
    ],
    "dns": [],
}
for _name, _kind in (("rpi1.cluster.internal", "A"), ("rpi1", "AAAA"), ("11.0.77.10.in-addr.arpa", "PTR"), ("x", "A")):
    _query = DNSRecord.question(_name, _kind)
    SEEDS["dns"].append(bytes(_query.pack()))
    _query.add_ar(EDNS0(udp_len=1232))
    SEEDS["dns"].append(bytes(_query.pack()))


def damaged(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, damaged in one of the ways in which packets are: or whole, or nothing but noise."""
    raw = bytearray(dice.choice(seeds))
    match dice.randrange(10):
        case 0:
            return dice.randbytes(dice.randrange(600))
        case 1:
            return bytes(raw[: dice.randrange(len(raw) + 1)])
        case 2:
            raw += dice.randbytes(dice.randrange(1, 1200))
        case 3:  # a length or a count that is wrong
            raw[dice.randrange(len(raw))] = dice.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF))
        case 4:  # two packets grown together
            other = dice.choice(seeds)
            raw[dice.randrange(len(raw)) :] = other[dice.randrange(len(other)) :]
        case 5:  # a piece said twice
            begin = dice.randrange(len(raw))
            piece = raw[begin : begin + dice.randrange(1, 40)]
            raw[begin:begin] = piece * dice.randrange(1, 8)
        case 6:
            raw = raw[:1400]
        case _:
            for _ in range(dice.randrange(1, 9)):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(raw)


def disguised(dice: random.Random, packet: bytes) -> bytes:
    """A DHCP message under a MAC of its own, every other one that of a Pi: one would soon be limited."""
    if len(packet) < 34 or dice.random() < 0.2:
        return packet
    kept = dice.choice((29, 31))
    return packet[:kept] + dice.randbytes(34 - kept) + packet[34:]


def made_up(dice: random.Random) -> bytes:
    """The DISCOVER of a Pi 4 that there is not."""
    serial = dice.randbytes(4)
    return dhcp(b"\xdc\xa6\x32" + dice.randbytes(3), 1, EEPROM, GUID[:12] + serial, xid=int.from_bytes(serial))


Make = Callable[[random.Random], bytes]
MADE: dict[str, tuple[str, Make]] = {
    "dhcp": ("dhcp", lambda dice: disguised(dice, damaged(dice, SEEDS["dhcp"]))),
    "tftp": ("tftp", lambda dice: damaged(dice, SEEDS["tftp"])),
    "dns": ("dns", lambda dice: damaged(dice, SEEDS["dns"])),
    "made up": ("dhcp", made_up),
}
"""What is sent, to which service, and how it is made."""

# --- the server


@dataclass
class Served:
    """A running daemon below a root of its own."""

    paths: Paths
    process: run.Process
    log: Path

    @property
    def pids(self) -> list[int]:
        """The daemon and, by what it is called with, its TFTP workers."""
        pid = self.process.pid
        every = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(int(one) for one in every if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes())]

    def memory(self) -> float:
        """MB resident, all processes."""
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids) * page / 1e6

    def files(self) -> int:
        """What lies below the root."""
        return sum(len(names) for _, _, names in os.walk(self.paths.root))


@contextmanager
def serving(root: Path) -> Iterator[Served]:
    """The daemon with one registered Pi and one file of 400 KB."""
    paths = Paths(root)
    boot = paths.images / "default/generations" / GENERATION / "boot"
    boot.mkdir(parents=True)
    (boot / "vmlinuz").write_bytes(KERNEL)
    (paths.images / "default/current").symlink_to(f"generations/{GENERATION}")
    paths.etc.mkdir(parents=True)
    paths.config.write_text(CONFIG)
    paths.registry.write_text(NODES)
    log = root / "serve.log"
    with log.open("wb") as out:
        argv = [sys.executable, "-m", "kestrelpi", "--root", str(root), "serve"]
        process = run.start(dies_with_us(argv, "TERM"), output=out)
    try:
        deadline = time.monotonic() + 60
        while "serving on" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield Served(paths, process, log)
    finally:
        run.stop(process)


def waiting(port: int) -> tuple[int, int]:
    """Bytes that wait in the buffers of the sockets on a UDP port, and packets that they dropped (proc(5): udp)."""
    queued = dropped = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            queued += int(fields[4].partition(":")[2], 16)
            dropped += int(fields[-1])
    return queued, dropped


# --- the clients


def attack(what: str, count: int, seed: int) -> None:
    """Send `count` packets of one kind; in a process of its own."""
    service, make = MADE[what]
    dice, port, parent = random.Random(seed), PORTS[service], os.getppid()
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(8)]
    for number in range(count):
        socks[number % len(socks)].sendto(make(dice), ("127.0.0.1", port))
        if number % AT_ONCE == 0:
            if os.getppid() != parent:
                return  # it was killed
            while waiting(port)[0] > 64 << 10:
                time.sleep(0.001)
            if number % 4096 == 0:  # what was answered goes to sockets that nobody reads: new ones, new ports
                for sock in socks:
                    sock.close()
                socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(8)]
    for sock in socks:
        sock.close()


def attack_with(kinds: Iterable[str], count: int, seed: int) -> None:
    """All kinds at the same time, `count` of each."""
    context = multiprocessing.get_context("spawn")
    attackers = [context.Process(target=attack, args=(what, count, seed + number)) for number, what in enumerate(kinds)]
    for one in attackers:
        one.start()
    try:
        for one in attackers:
            one.join()
            if one.exitcode:
                raise SystemExit(f"an attacker ended with status {one.exitcode}")
    finally:
        for one in attackers:
            one.terminate()


def linger(seed: int, stop: threading.Event, counted: Counter[str]) -> None:
    """Keep LINGERING transfers of the kernel that never answer, acknowledge a block a second, or are gone midway."""
    dice = random.Random(seed)
    request = b"\0\1" + f"{SERIAL}/vmlinuz".encode() + b"\0octet\0blksize\x001468\0"
    clients: list[tuple[socket.socket, str, float]] = []
    while not stop.wait(0.05):
        now = time.monotonic()
        while len(clients) < LINGERING:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.sendto(request, ("127.0.0.1", PORTS["tftp"]))
            how = dice.choice(("silent", "slow", "vanishing"))
            counted[how] += 1
            clients.append((sock, how, now + dice.uniform(1, 20)))
        left = []
        for sock, how, until in clients:
            if how != "silent":
                acknowledge(sock)
            if now < until and not (how == "vanishing" and dice.random() < 0.02):
                left.append((sock, how, until))
            else:
                sock.close()
        clients = left
    for sock, _, _ in clients:
        sock.close()


def acknowledge(sock: socket.socket) -> None:
    """Take what has come and acknowledge the last of it, once."""
    last = None
    try:
        while True:
            last = sock.recvfrom(2048)
    except BlockingIOError:
        if last:
            packet, peer = last
            sock.sendto(b"\0\4" + (b"\0\0" if packet[1] == 6 else packet[2:4]), peer)


@dataclass
class Pi:
    """The well-behaved one. Seconds of each service, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"dhcp": [], "tftp": [], "dns": []})
    wrong: list[str] = field(default_factory=list)

    def live(self, stop: threading.Event) -> None:
        """Boot again and again."""
        steps: dict[str, Callable[[], str]] = {"dhcp": self.address, "tftp": self.kernel, "dns": self.name}
        while True:
            for what, step in steps.items():
                began = time.monotonic()
                try:
                    wrong = step()
                except TimeoutError:
                    wrong = "no answer"
                if wrong:
                    self.wrong.append(f"{what}: {wrong}")
                self.seconds[what].append(time.monotonic() - began)
            if stop.wait(0.3):
                return

    def address(self) -> str:
        """DISCOVER, OFFER, REQUEST, ACK, with an EEPROM's patience: 4 s between two tries, 45 s in all."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", PORTS["dhcp"]))
            for kind, more in ((1, b""), (3, b"\x32\4\x0a\x4d\0\x0b\x36\4" + SERVER)):
                reply = self._asked(sock, dhcp(MAC, kind, EEPROM, GUID, more, xid=kind), slice(4, 8), 4, 11)
                if reply[16:20] != b"\x0a\x4d\0\x0b" or reply[240:243] != bytes([53, 1, kind + 1 + (kind == 3)]):
                    return f"{reply[:20].hex()} … {reply[240:243].hex()} for message {kind}"
        return ""

    def kernel(self) -> str:
        """The file, block by block, with a Pi's repetitions: 2 s each, 30 s in all."""
        got, peer, block = b"", ("127.0.0.1", PORTS["tftp"]), 1
        said = b"\0\1" + f"{SERIAL}/vmlinuz".encode() + b"\0octet\0blksize\x001468\0"
        deadline = time.monotonic() + 30
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            while time.monotonic() < deadline:
                sock.sendto(said, peer)
                try:
                    packet, peer = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                if packet[1] == 6:
                    said = b"\0\4\0\0"
                elif packet[1] == 3 and packet[2:4] == struct.pack("!H", block):
                    got, said, block = got + packet[4:], b"\0\4" + packet[2:4], block + 1
                    if len(packet) < 1472:
                        sock.sendto(said, peer)
                        return "" if got == KERNEL else "another file"
                elif packet[1] == 5:
                    return f"error {packet[4:]!r}"
        return f"{len(got)} bytes in 30 s"

    def name(self) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", PORTS["dns"]))
            reply = DNSRecord.parse(self._asked(sock, SEEDS["dns"][0], slice(2), 2, 3))
            said = [str(one.rdata) for one in reply.rr]
            return "" if said == ["10.77.0.11"] else f"{said}"

    def _asked(self, sock: socket.socket, packet: bytes, number: slice, patience: float, tries: int) -> bytes:
        """The answer that has the packet's number; one to an earlier try of an earlier question may still come."""
        for _ in range(tries):
            sock.send(packet)
            until = time.monotonic() + patience
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    reply = sock.recv(2048)
                except TimeoutError:
                    break
                if reply[number] == packet[number]:
                    return reply
        raise TimeoutError


# --- the run


def fuzz(root: Path, packets: int, seed: int) -> dict[str, object]:
    """The whole of it: two equal rounds, so that tables which fill once can be told from those that grow for ever."""
    with serving(root) as served:
        stop, counted, pi = threading.Event(), Counter[str](), Pi()
        beside = [
            threading.Thread(target=linger, args=(seed, stop, counted)),
            threading.Thread(target=pi.live, args=(stop,)),
        ]
        began, workers = time.monotonic(), served.pids[1:]
        time.sleep(1)
        memory, full = [served.memory()], []
        for thread in beside:
            thread.start()
        try:
            for turn in range(2):
                attack_with(SEEDS, packets // 2, seed + 10 * turn)
                memory.append(served.memory())
            for turn in range(2):
                attack_with(["made up"], packets // 10, seed + 100 * turn)
                full.append(served.memory())
        finally:
            stop.set()
            for thread in beside:
                thread.join()
        log = served.log.read_text()
        return {
            "packets": dict.fromkeys(SEEDS, packets),
            "dropped": {service: waiting(PORTS[service])[1] for service in SEEDS},
            "seconds": round(time.monotonic() - began, 1),
            "lingering": dict(counted),
            "served": {what: len(every) for what, every in pi.seconds.items()},
            "slowest": {what: round(max(every), 2) for what, every in pi.seconds.items()},
            "median": {what: round(statistics.median(every), 3) for what, every in pi.seconds.items()},
            "wrong": pi.wrong,
            "tracebacks": log.count("Traceback"),
            "workers_died": served.pids[1:] != workers,
            "memory_mb": [round(one, 1) for one in memory],
            "memory_full_mb": [round(one, 1) for one in full],
            "files": served.files(),
            "log_lines": log.count("\n"),
            "log": log[max(log.index("Traceback") - 500, 0) :][:4000] if "Traceback" in log else "",
        }


def main() -> None:
    """Run it in a namespace, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=1_000_000, help="for each service")
    parser.add_argument("--seed", type=int, default=20261122)
    options = parser.parse_args()
    if os.environ.get("KESTRELPI_FUZZ") != "inside":
        here = {"KESTRELPI_FUZZ": "inside", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        run.replace(["unshare", "--net", sys.executable, *sys.argv], here)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    run.run(["ip", "link", "set", "lo", "up"])
    with tempfile.TemporaryDirectory(prefix="kestrelpi-fuzz-") as name:
        report = fuzz(Path(name), options.packets, options.seed)
    print(json.dumps(report, indent=1))
    if report["tracebacks"] or report["wrong"] or report["workers_died"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
