"""The events of a room of Pis that is switched on at once, in simulated time (see `storm`)."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from kestrelpi.lab import dhcp
from kestrelpi.lab.fairlink import FairLink
from kestrelpi.lab.frontend import Frontend
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.profiles import DhcpTraits, TftpTraits
from kestrelpi.nodes.boots import Stage
from kestrelpi.services.turns import EVERY, Turns

ROM_FILES = (52_480,)
"""bootcode.bin"""
FILES: Mapping[int, Sequence[int]] = {
    3: (700_000, 3_000, 30_000, 2_600_000, 11_200_000),
    4: (800_000, 3_000, 30_000, 2_600_000, 11_200_000),
    5: (80_000, 2_600_000, 11_200_000),
}
"""Bytes of the files by family: cut-down firmware, device tree, initramfs, kernel (measured, docs/explanation)."""
RATES: Mapping[str, tuple[float, float]] = {
    "3B": (0.8e6, 11.5e6),
    "3B+": (2.0e6, 28e6),
    "4-old": (1.7e6, 118e6),
    "5": (1.0e6, 118e6),
    "CM5": (1.0e6, 118e6),
}
"""Bytes a second that a model takes at most: over TFTP, which waits for each packet (published: 3B+, 4, 5; between the
reports: 3B), and from its root: what its Ethernet carries."""
OTHERS = (3.4e6, 118e6)
KERNEL = 6.4
"""Seconds from the kernel's start to the question for the root (measured under emulation)."""
ROOT = (45e6, 135e6)
"""Bytes of the root: a plain system, and one with Docker and Slurm (measured)."""
SPREAD = 2.0
"""Seconds within which the boards of a room come to life."""
ANSWER, PAUSE = 4.0, 1.0
"""A question for the root is answered after so many seconds with "not yet", and put again after the pause."""
LISTENING = 100.0
"""Seconds for which the server has run when the power comes."""
LONGEST = 3600.0
"""Seconds after which a room that doesn't come up is given up."""

Resume = Callable[[object], None]
Wait = Callable[[Resume], None]
"""Something to wait for: calls its argument once, with what came of it."""
Steps = Generator[Wait, object, bool]


@dataclass
class Board:
    """One Pi of the room."""

    pi: PiSpec
    begins: float
    root: float
    """Bytes."""
    tries: int = 0
    late_files: int = 0
    cut: bool = False
    """Whether one of its transfers ended with the server's process."""
    ready: float | None = None


class Room:
    """The events of one storm."""

    def __init__(self, boards: Sequence[Board], link: FairLink, held: bool) -> None:
        """`held`: the server keeps Pis waiting until it is their turn."""
        self.boards, self.link = boards, link
        self.now = 0.0
        self._with_turns = held
        self._start()
        if self.turns:
            self.turns.admission.started -= LISTENING
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._listening: dict[str, Callable[[bytes], None]] = {}
        self._sending: dict[str, bytes] = {}
        self._transfers: dict[int, Board] = {}
        """Those over TFTP, by the number of their flow."""
        self._left = len(boards)

    def _start(self) -> None:
        """A server that knows nothing of what was before."""
        self.serving = True
        self.turns = Turns(lambda: self.link.capacity, lambda: self.now) if self._with_turns else None
        if self.turns:
            self.turns.called = self._called
        self.frontend = Frontend([board.pi for board in self.boards], self.turns)

    def kill(self, at: float, seconds: float) -> None:
        """Let the server's process die at `at`, and start again `seconds` later."""

        def die() -> None:
            self.serving = False
            self.frontend = Frontend([], None)
            self._sending.clear()
            for number, board in self._transfers.items():
                board.cut = True
                self.link.cut(number, self.now)
            self._transfers.clear()

        self._at(at, die)
        self._at(at + seconds, self._start)

    def run(self) -> None:
        """Until every Pi is up or dead."""
        for board in self.boards:
            self._go(self._life(board))
        self._tick()
        while self._left and self.now < LONGEST:
            end = self.link.next_end()
            if self._events and self._events[0][0] < end:
                self.now, _, event = heapq.heappop(self._events)
                event()
            else:
                self.now = end
                for told in self.link.finish(end):
                    told()

    def _at(self, time: float, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, event))

    def _tick(self) -> None:
        if self.frontend.turns:
            self.frontend.turns.look()
        if self._with_turns:
            self._at(self.now + EVERY, self._tick)

    def _called(self, macs: Sequence[str]) -> None:
        for mac in macs:
            self._deliver(mac, self.frontend.called(mac, self.now))

    def _deliver(self, mac: str, reply: tuple[bytes, float] | None) -> None:
        """As the server does: a reply that waits for its delay is dropped when another message comes, not the same."""
        if reply and reply[1] and mac in self._sending:
            return
        self._sending.pop(mac, None)
        if reply is None:
            return
        raw, delay = reply

        def arrive() -> None:
            if self._sending.get(mac) is raw:
                del self._sending[mac]
                if mac in self._listening:
                    self._listening[mac](raw)

        self._sending[mac] = raw
        self._at(self.now + delay, arrive)

    # what a Pi can wait for

    def _go(self, steps: Steps, told: object = None) -> None:
        try:
            wait = steps.send(told)
        except StopIteration:
            self._left -= 1
            return
        wait(lambda result: self._go(steps, result))

    def _sleep(self, seconds: float) -> Wait:
        return lambda resume: self._at(self.now + seconds, lambda: resume(None))

    def _reply(self, mac: str, raw: bytes, seconds: float) -> Wait:
        """Send a DHCP message; the reply, or None after `seconds`."""

        def wait(resume: Resume) -> None:
            def end(result: object) -> None:
                if self._listening.get(mac) is end:
                    del self._listening[mac]
                    resume(result)

            self._listening[mac] = end
            self._deliver(mac, self.frontend.receive(raw, self.now) if self.serving else None)
            self._at(self.now + seconds, lambda: end(None))

        return wait

    def _read(self, size: float, most: float) -> Wait:
        """Take `size` bytes of the root, however long it takes."""

        def wait(resume: Resume) -> None:
            self.link.add(size, most, lambda: resume(True), self.now)

        return wait

    def _transfer(self, board: Board, size: float, most: float, limit: float) -> Wait:
        """Take `size` bytes of a file; True, or False when they weren't there after `limit` seconds."""

        def wait(resume: Resume) -> None:
            over: list[object] = []

            def end(result: bool) -> None:
                if over:
                    return
                over.append(result)
                if self._transfers.pop(number, None) and not result:
                    self.link.cut(number, self.now)
                resume(result)

            number = self.link.add(size, most, lambda: end(True), self.now)
            self._transfers[number] = board
            self._at(self.now + limit, lambda: end(False))

        return wait

    # what a Pi does

    def _life(self, board: Board) -> Steps:
        profile = board.pi.profile
        yield self._sleep(board.begins)
        while True:
            board.tries += 1
            yield self._sleep(profile.timers.power_on)
            if (yield from self._loader(board)):
                break
            if profile.timers.again is None:
                return False
            yield self._sleep(profile.timers.again)
        self.frontend.reached(board.pi.mac, Stage.KERNEL)
        yield self._sleep(KERNEL)
        while not self._root(board.pi.mac):
            yield self._sleep(ANSWER)
            if self._root(board.pi.mac):
                break
            yield self._sleep(PAUSE)
        self.frontend.reached(board.pi.mac, Stage.ROOT)
        yield self._read(board.root, RATES.get(board.pi.model, OTHERS)[1])
        board.ready = self.now
        self.frontend.reached(board.pi.mac, Stage.READY)
        return True

    def _root(self, mac: str) -> bool:
        return self.serving and self.frontend.root(mac)

    def _loader(self, board: Board) -> Steps:
        """The boot loader's stages; False: it gave up."""
        profile = board.pi.profile
        if not (yield from self._dhcp(board.pi, profile.dhcp)):
            return False
        if profile.second_dhcp:
            if not (yield from self._files(board, profile.tftp, ROM_FILES)):
                return False
            if not (yield from self._dhcp(board.pi, profile.second_dhcp)):
                return False
        return (yield from self._files(board, profile.second_tftp, FILES[profile.family]))

    def _dhcp(self, pi: PiSpec, traits: DhcpTraits) -> Steps:
        """DISCOVER until an offer fits, REQUEST where the stage sends one."""
        xid = traits.xid if traits.xid is not None else zlib.crc32(f"{pi.mac} {self.now}".encode())
        deadline = self.now + traits.timeout
        raw = dhcp.discover(pi, traits, xid)
        while self.now < deadline:
            reply = yield self._reply(pi.mac, raw, min(traits.interval, deadline - self.now))
            if not isinstance(reply, bytes):
                continue
            options = dhcp.parse_options(reply[dhcp.FIXED.size :])
            offer = dhcp.Reply(dhcp.OFFER, xid, IPv4Address(reply[16:20]), IPv4Address(0), "", options)
            server, _ = dhcp.boot_server(traits, offer)
            if server is None:
                continue
            if not traits.sends_request:
                return True
            raw = dhcp.request(pi, traits, xid, offer.address, server)
            ack = yield self._reply(pi.mac, raw, min(traits.interval, deadline - self.now))
            if isinstance(ack, bytes):
                return True
        return False

    def _files(self, board: Board, traits: TftpTraits, sizes: Sequence[int]) -> Steps:
        most = RATES.get(board.pi.model, OTHERS)[0]
        for size in sizes:
            if sizes is not ROM_FILES:
                self.frontend.reached(board.pi.mac, Stage.FIRMWARE)
            asked = self.now
            while not self.serving and self.now - asked < traits.file_timeout:
                yield self._sleep(traits.retry)
            if not (yield self._transfer(board, size, most, asked + traits.file_timeout - self.now)):
                board.late_files += 1
                return False
        return True
