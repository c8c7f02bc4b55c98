"""A room of Pis that is switched on at once, in simulated time: real timers, real decisions, a link that is shared.

What is real: the DHCP messages of each model, the server's rules (`dhcp.policy`), the admission (`services.admission`),
the models' timers and time limits (`lab.profiles`). What is a model: the link (`lab.fairlink`), how fast a board can
take files (RATES), how long a kernel needs until it asks for its root (KERNEL).
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from kestrelpi.config import parse
from kestrelpi.lab import dhcp
from kestrelpi.lab.fairlink import FairLink
from kestrelpi.lab.identity import PiSpec, pi_spec
from kestrelpi.lab.profiles import DhcpTraits, TftpTraits
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.node import Node
from kestrelpi.services.dhcp import packet
from kestrelpi.services.dhcp.book import LeaseBook
from kestrelpi.services.dhcp.notices import Notices
from kestrelpi.services.dhcp.policy import Policy
from kestrelpi.services.dhcp.server import site
from kestrelpi.services.turns import CARRIED, EVERY, GIGABIT, Turns

CONFIG = parse("network: {address: 10.77.0.1/16}\n")
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


@dataclass(frozen=True)
class Outcome:
    """What became of one Pi; seconds since the power came."""

    model: str
    ready: float | None
    tries: int
    late_files: int
    """Files that missed their time limit."""


@dataclass(frozen=True)
class Result:
    """What became of the room."""

    outcomes: Sequence[Outcome]
    needed: float
    """Bytes of all boots, were nothing loaded twice."""
    carried: float
    link: float
    held: int

    @property
    def booted(self) -> int:
        return sum(one.ready is not None for one in self.outcomes)

    @property
    def last(self) -> float:
        """Seconds to the last Pi that is up."""
        return max((one.ready for one in self.outcomes if one.ready is not None), default=0.0)

    @property
    def least(self) -> float:
        """Seconds that the link needs at least."""
        return self.needed / self.link

    @property
    def ratio(self) -> float:
        return self.last / self.least


class Registered:
    """A directory in which every Pi is registered, by number."""

    def __init__(self, pis: Sequence[PiSpec]) -> None:
        first = IPv4Address("10.77.1.0")
        nodes = [Node(f"rpi{pi.index}", pi.mac, "rpi", first + pi.index) for pi in pis]
        self._macs = {node.mac: node for node in nodes}
        self._addresses = {node.address: node for node in nodes}

    def node_by_mac(self, mac: str) -> Node | None:
        return self._macs.get(mac)

    def node_by_address(self, address: IPv4Address) -> Node | None:
        return self._addresses.get(address)


class Frontend:
    """The server's side, as kestrelpi serve has it, without sockets. `turns`: None lets everybody in at once."""

    def __init__(self, pis: Sequence[PiSpec], turns: Turns | None) -> None:
        self.turns = turns
        directory = Registered(pis)
        book = LeaseBook(CONFIG.pool, lambda address: directory.node_by_address(address) is not None)
        quiet = Notices(lambda: 0.0)
        self.policy = Policy(
            CONFIG, site(CONFIG), directory, book, lambda *_: None, lambda *_: None, quiet, turns=turns
        )
        self._held: dict[str, packet.Message] = {}

    def receive(self, raw: bytes, now: float) -> tuple[bytes, float] | None:
        """The reply to a BOOTP payload, and the seconds after which it is sent."""
        asked = packet.parse(raw)
        answer = self.policy.answer(asked, now)
        if answer is None:
            self._held[asked.mac] = asked
            return None
        return answer.packet, answer.delay

    def called(self, mac: str, now: float) -> tuple[bytes, float] | None:
        """The same for a Pi that waited."""
        answer = self.policy.called(self._held.pop(mac), now)
        return (answer.packet, answer.delay) if answer else None

    def root(self, mac: str) -> bool:
        return self.turns is None or self.turns.root(mac)

    def reached(self, mac: str, stage: Stage) -> None:
        if self.turns:
            self.turns.reached(mac, stage)


@dataclass
class Board:
    """One Pi of the room."""

    pi: PiSpec
    begins: float
    root: float
    """Bytes."""
    tries: int = 0
    late_files: int = 0
    ready: float | None = None


class Room:
    """The events of one storm."""

    def __init__(self, boards: Sequence[Board], link: FairLink, held: bool) -> None:
        """`held`: the server keeps Pis waiting until it is their turn."""
        self.boards, self.link = boards, link
        self.now = 0.0
        self.turns = Turns(link.capacity, lambda: self.now) if held else None
        if self.turns:
            self.turns.admission.started -= LISTENING
            self.turns.called = self._called
        self.frontend = Frontend([board.pi for board in boards], self.turns)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._listening: dict[str, Callable[[bytes], None]] = {}
        self._sending: dict[str, bytes] = {}
        self._left = len(boards)

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
            self._deliver(mac, self.frontend.receive(raw, self.now))
            self._at(self.now + seconds, lambda: end(None))

        return wait

    def _load(self, size: float, most: float, limit: float = float("inf")) -> Wait:
        """Take `size` bytes from the link; True, or False when it took longer than `limit`."""

        def wait(resume: Resume) -> None:
            over: list[object] = []

            def end(result: bool) -> None:
                if not over:
                    over.append(result)
                    if not result:
                        self.link.cut(number, self.now)
                    resume(result)

            number = self.link.add(size, most, lambda: end(True), self.now)
            if limit < float("inf"):
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
        while not self.frontend.root(board.pi.mac):
            yield self._sleep(ANSWER)
            if self.frontend.root(board.pi.mac):
                break
            yield self._sleep(PAUSE)
        self.frontend.reached(board.pi.mac, Stage.ROOT)
        yield self._load(board.root, RATES.get(board.pi.model, OTHERS)[1])
        board.ready = self.now
        self.frontend.reached(board.pi.mac, Stage.READY)
        return True

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
            if not (yield self._load(size, most, traits.file_timeout)):
                board.late_files += 1
                return False
        return True


MIXED = ("3B", "3B+", "4", "4", "4-old", "CM4", "5", "5")
"""The models of a mixed room, over and over: a quarter are Pi 3."""


def storm(count: int, *, held: bool = True, models: Sequence[str] = MIXED, mbit: int = GIGABIT) -> Result:
    """Switch on `count` Pis at once on a link of `mbit` Mbit/s; `held`: with turns. Same arguments: same room."""
    dice = random.Random(count)
    pis = [pi_of(number, models[number % len(models)]) for number in range(count)]
    boards = [Board(pi, dice.uniform(0, SPREAD), dice.uniform(*ROOT)) for pi in pis]
    carrier = FairLink(mbit * CARRIED)
    room = Room(boards, carrier, held)
    room.run()
    return Result(
        [Outcome(one.pi.model, one.ready, one.tries, one.late_files) for one in boards],
        sum(one.root + sum(FILES[one.pi.profile.family]) for one in boards),
        carrier.carried,
        carrier.capacity,
        room.turns.counters["held"] if room.turns else 0,
    )


def pi_of(number: int, model: str) -> PiSpec:
    """A Pi with a MAC of its own among 65,536."""
    pi = pi_spec("storm", number, model)
    return replace(pi, mac=f"{pi.mac[:8]}:00:{number >> 8:02x}:{number & 255:02x}")
