"""A UDP socket that many transfers share: what waits there is taken in one system call and answered in one.

With a socket for each transfer 256 Pis cost up to a quarter more of the processor than dnsmasq needs for them, much of
it for entering and leaving the kernel.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections.abc import Sequence

from kestrelpi.services.mmsg import ADDRESS, Messages, sender
from kestrelpi.services.tftp.packets import ACK_LENGTH, FIRST_ACK, LAST_ACK
from kestrelpi.services.tftp.session import Outcome, Session
from kestrelpi.services.tftp.sockets import Address, enlarge

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Packets that are taken before they are answered. More cost no less, and Pis would wait until all are worked out."""
ROOM = 64
"""Bytes of a client's packet that are looked at: an ACK has 4, an ERROR its text."""
WORDS = [struct.Struct(">" + count * f"I{ROOM - 4}x") for count in range(AT_ONCE + 1)]
"""The first four bytes of each of so many packets."""
ACK_LENGTHS = [ACK_LENGTH] * AT_ONCE
IP_RECVERR = 11
"""linux/in.h"""
ICMP = 2
"""SO_EE_ORIGIN_ICMP of linux/errqueue.h"""

Ends = list[tuple[Address, Outcome]]
"""Transfers that are over."""


class Port:
    """A port of the address `local` from which transfers are sent; each client has one at most here."""

    def __init__(self, local: str) -> None:
        """Raises OSError."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.bind((local, 0))
            self._sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            enlarge(self._sock)
        except OSError:
            self._sock.close()
            raise
        self._sessions: dict[int, Session] = {}
        self._heard, peers = bytearray(AT_ONCE * ROOM), bytearray(AT_ONCE * ADDRESS)
        self._into = Messages(self._sock.fileno(), AT_ONCE, self._heard, ROOM, peers)
        self._out = Messages(self._sock.fileno(), AT_ONCE, self._heard, ROOM, peers)
        self._peers = memoryview(peers).cast("Q")[:: ADDRESS // 8]  # family, port and address of its sender

    def fileno(self) -> int:
        """Readable when `exchange` has something to do; an error is for `refused`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Give the port back."""
        self._sock.close()

    def add(self, client: Address, session: Session) -> None:
        """Let `session` hear what `client` says, until it ends or `remove`."""
        self._sessions[peer(client)] = session

    def remove(self, client: Address) -> None:
        """The client's transfer is over."""
        self._sessions.pop(peer(client), None)

    def send(self, packet: bytes, client: Address) -> None:
        """Send one packet. No route, no buffer, a firewall: perhaps only now; the timeout decides.

        It is tried twice, as by Messages.send: an error of another client's packet may have waited at the socket.
        """
        for last in (False, True):
            try:
                self._sock.sendto(packet, client)
                return
            except OSError as problem:
                if last:
                    log.debug("TFTP to %s: %s", client, problem)

    def exchange(self, now: float) -> Ends:
        """Take what waits and send what it asks for; the transfers that are over by it."""
        taken = self._into.receive()
        if taken < 1:
            return []
        sessions = self._sessions
        ends: Ends = []
        vectors: list[int] = []  # address and size of what is sent, for each packet that was taken
        put = vectors.append
        unanswered = []
        for who, word in zip(self._peers[:taken].tolist(), self._first_words(taken), strict=True):
            session = sessions.get(who)
            if session and word == session.expected:
                offset = session.offset
                if offset < session.plain:  # what session.advance does, without a call
                    size = session.size
                    session.offset = offset + size
                    session.expected = word + 1 if word != LAST_ACK else FIRST_ACK
                    session.sent_at = now
                    put(session.base + offset)
                    put(size)
                    continue
                following = session.advance(now)
                if following:
                    vectors += following
                    continue
                outcome: Outcome | None = "done"
            elif session:
                outcome = session.unusual(self._packet(len(vectors) // 2))
            else:
                outcome = None  # a late packet for a transfer that is over
            if outcome:
                del sessions[who]
                ends.append((address(who), outcome))
            unanswered.append(len(vectors) // 2)
            vectors += (0, 0)
        self._send(vectors, unanswered)
        return ends

    def _first_words(self, taken: int) -> Sequence[int]:
        """The first four bytes of each packet as a number; 0 for one that is shorter."""
        words: Sequence[int] = WORDS[taken].unpack_from(self._heard)
        lengths = self._into.received[:taken].tolist()
        if lengths != ACK_LENGTHS[:taken]:
            words = [word if length >= ACK_LENGTH else 0 for word, length in zip(words, lengths, strict=True)]
        return words

    def _packet(self, index: int) -> bytes:
        """What was taken, as far as there is room for it."""
        return bytes(self._heard[index * ROOM : index * ROOM + self._into.received[index]])

    def _send(self, vectors: list[int], unanswered: list[int]) -> None:
        self._out.lay(vectors)
        lost = begin = 0
        for index in unanswered:
            lost += self._out.send(begin, index)
            begin = index + 1
        lost += self._out.send(begin, len(vectors) // 2)
        if lost:
            log.debug("%d TFTP packets could not be sent", lost)

    def refused(self) -> Ends:
        """What ICMP told: the transfers that are over because their clients' ports are closed."""
        ends: Ends = []
        while True:
            try:
                _, ancillary, _, client = self._sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:  # no more of it
                return ends
            session = self._sessions.get(peer(client))
            if session and any(_closed(said) for _, kind, said in ancillary if kind == IP_RECVERR):
                self.remove(client)
                ends.append((client, session.refused()))


def _closed(said: bytes) -> bool:
    """Whether a sock_extended_err (recv(2)) says that a port is closed."""
    code, origin = struct.unpack_from("=IB", said)
    return bool(code == errno.ECONNREFUSED and origin == ICMP)


def peer(client: Address) -> int:
    """The first eight bytes of a client's sockaddr_in, read as a number."""
    family, port = struct.pack("=H", socket.AF_INET), struct.pack("!H", client[1])
    return int.from_bytes(family + port + socket.inet_aton(client[0]), sys.byteorder)


def address(peer: int) -> Address:
    """The client of which `peer` made the number."""
    return sender(peer.to_bytes(8, sys.byteorder))
