"""One transfer: what to send for what arrives, and when to send again. It knows no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from kestrelpi.services.tftp.blocks import Prepared, packet
from kestrelpi.services.tftp.packets import ACKS, ERROR_OPCODE, error_text

GIVE_UP = 25.0
"""Seconds of silence after which a client is gone; a Pi's own limit is 30 s a file (TFTP_FILE_TIMEOUT)."""
FIRST_TIMEOUT = 1.0
SHORTEST_TIMEOUT = 0.25
"""Seconds. Not less: start4.elf hangs on DATA that it already has, so a late ACK must not be taken for a lost one."""
LONGEST_TIMEOUT = 6.0
MOVING = 2.0
"""Seconds since the last new packet in which a transfer counts as alive; a Pi repeats its request after 2 s."""

Outcome = Literal["done", "aborted", "timeout"]


class Session:
    """The state of one transfer, in lock-step: one packet in flight, the next when exactly that one is acknowledged.

    A duplicate ACK is never answered (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice): only silence makes us
    send again. `advance` is the hot path, 10,000 times a boot: whoever reads the socket calls it for the ACK that is
    `expected`, and for anything else `unusual`. The bookkeeping of timeouts is left to `tick`, a few times a second.
    """

    __slots__ = (
        "_block",
        "_blocks",
        "_count",
        "_index",
        "_looked_at",
        "_looked_index",
        "_oack",
        "_send",
        "_sent_at",
        "_stalled",
        "_timeout",
        "_tries",
        "addresses",
        "detail",
        "due",
        "expected",
        "final",
        "last",
        "prepared",
        "resent",
        "size",
        "started",
    )

    def __init__(self, send: Callable[[bytes], None], prepared: Prepared, block: int, oack: bytes, now: float) -> None:
        """`send` sends the first packet and repeated ones."""
        self._send = send
        self.prepared = prepared
        self._blocks = prepared.blocks
        self.addresses, self.size, self.last = self._blocks.addresses, self._blocks.size, self._blocks.last
        """Those of its blocks."""
        self._count = len(self.addresses)
        self.final = self._count - 1
        """The index of the last one."""
        self._block = block
        self._oack = oack
        self._index = 0 if oack else 1  # how many DATA packets were sent; 0: the OACK is in flight
        self.expected = ACKS[self._index]
        """The ACK that is waited for, its four bytes read as a number."""
        self._sent_at = self._looked_at = self.started = now
        self._looked_index = -1
        self._stalled = 0.0  # seconds since the last look in which a lost packet was waited for
        self._timeout = FIRST_TIMEOUT
        self._tries = 0
        self.due = now + FIRST_TIMEOUT
        """When `tick` wants to be called."""
        self.detail = ""
        self.resent = 0
        """Packets that were sent again, because nothing came for too long."""

    @property
    def acknowledged(self) -> int:
        """Bytes of the file that the client has for sure."""
        return max(0, min((self._index - 1) * self._block, self.prepared.size))

    def repeated(self, now: float) -> bool:
        """Whether the same request from the same port is a repetition that was under way, not a new beginning.

        It is one while only the first packet was sent, and while the transfer moves. A Pi 3's ROM asks from the same
        port at every boot; one that was switched off and on again has been silent for longer.
        """
        untouched = self._index == (0 if self._oack else 1)
        return untouched or now - self._sent_at < MOVING

    def begin(self) -> None:
        """Send the first packet."""
        self._resend()

    def advance(self, now: float) -> int:
        """The expected ACK came: the index of the packet to send next; -1 when that was the last."""
        index = self._index
        if index >= self._count:
            return -1
        self._index = index + 1
        self.expected = ACKS[(index + 1) & 0xFFFF]
        self._sent_at = now
        return index

    def unusual(self, heard: bytes) -> Outcome | None:
        """Something else came: the outcome when it ends the transfer; a duplicate, a late one or nonsense doesn't."""
        if heard[:2] != ERROR_OPCODE:
            return None
        self.detail = error_text(heard)
        return "aborted"

    def refused(self) -> Outcome:
        """The client's port is closed. After the last packet that is a lost last ACK: the client has the file."""
        if self._index >= self._count:
            return "done"
        self.detail = "the client closed its port"
        return "aborted"

    def tick(self, now: float) -> Outcome | None:
        """Look after the transfer at `due`: send again what was not acknowledged in time, or give up."""
        if self._index != self._looked_index:
            self._adapt()
        if now < self.due:
            return None
        if now - self._sent_at >= GIVE_UP:
            return "timeout"
        self._tries += 1
        self._stalled = now - self._sent_at
        self.resent += 1
        self.due = now + min(self._timeout * 2**self._tries, LONGEST_TIMEOUT)
        self._resend()
        return None

    def _adapt(self) -> None:
        """There was progress: the timeout becomes four times the mean time a block took since the last look.

        A clock read for every packet would cost more than sending it; the mean of a quarter second is as good. Time in
        which a lost packet was waited for says nothing of the line (Karn's algorithm, RFC 6298 section 3): counted in,
        it would make the timeout longer after each loss.
        """
        blocks = self._index - max(self._looked_index, 0)
        if blocks >= 4:
            mean = (self._sent_at - self._looked_at - self._stalled) / blocks
            self._timeout = min(max(4 * mean, SHORTEST_TIMEOUT), FIRST_TIMEOUT)
        self._looked_at = self._sent_at
        self._stalled = 0.0
        self._looked_index = self._index
        self._tries = 0
        self.due = self._sent_at + self._timeout

    def _resend(self) -> None:
        self._send(packet(self._blocks, self._index - 1) if self._index else self._oack)
