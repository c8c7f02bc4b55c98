"""One transfer: what to send for what arrives, and when to send again. It knows no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from kestrelpi.services.tftp.blocks import Prepared, packet
from kestrelpi.services.tftp.packets import ERROR_OPCODE, FIRST_ACK, LAST_ACK, error_text

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
    send again. Whoever reads the socket calls `advance` for the ACK that is `expected`, and for anything else
    `unusual`. That is the hot path, 10,000 times a boot: he may do himself what `advance` does for an offset below
    `plain`. The bookkeeping of timeouts is left to `tick`, a few times a second.
    """

    __slots__ = (
        "_block",
        "_blocks",
        "_looked_at",
        "_looked_sent",
        "_oack",
        "_send",
        "_stalled",
        "_timeout",
        "_tries",
        "base",
        "detail",
        "due",
        "expected",
        "offset",
        "plain",
        "prepared",
        "resent",
        "sent_at",
        "size",
        "started",
    )

    def __init__(self, send: Callable[[bytes], None], prepared: Prepared, block: int, oack: bytes, now: float) -> None:
        """`send` sends the first packet and repeated ones."""
        self._send = send
        self.prepared = prepared
        self._blocks = prepared.blocks
        self._block = block
        self._oack = oack
        self.size = self._blocks.size
        """Bytes of a packet, but for the last."""
        self.base = self._blocks.base or 0
        self.plain = 0 if self._blocks.base is None else self._blocks.final
        """Packets before this offset have `size` bytes and lie at `base`."""
        self.offset = 0 if oack else self.size
        """That of the packet to send next; 0: the OACK is in flight."""
        self.expected = FIRST_ACK + self._sent
        """The ACK that is waited for, its four bytes read as a number."""
        self.sent_at = self._looked_at = self.started = now
        """When the last new packet was sent."""
        self._looked_sent = -1
        self._stalled = 0.0  # seconds since the last look in which a lost packet was waited for
        self._timeout = FIRST_TIMEOUT
        self._tries = 0
        self.due = now + FIRST_TIMEOUT
        """When `tick` wants to be called."""
        self.detail = ""
        self.resent = 0
        """Packets that were sent again, because nothing came for too long."""

    @property
    def _sent(self) -> int:
        """How many DATA packets were sent."""
        return self.offset // self.size

    @property
    def acknowledged(self) -> int:
        """Bytes of the file that the client has for sure."""
        return max(0, min((self._sent - 1) * self._block, self.prepared.size))

    def repeated(self, now: float) -> bool:
        """Whether the same request from the same port is a repetition that was under way, not a new beginning.

        It is one while only the first packet was sent, and while the transfer moves. A Pi 3's ROM asks from the same
        port at every boot; one that was switched off and on again has been silent for longer.
        """
        untouched = self._sent == (0 if self._oack else 1)
        return untouched or now - self.sent_at < MOVING

    def begin(self) -> None:
        """Send the first packet."""
        self._resend()

    def advance(self, now: float) -> tuple[int, int] | None:
        """The expected ACK came: address and bytes of the packet to send next; None when that was the last."""
        offset, blocks = self.offset, self._blocks
        if offset > blocks.final:
            return None
        self.offset = offset + self.size
        self.expected = self.expected + 1 if self.expected != LAST_ACK else FIRST_ACK
        self.sent_at = now
        return blocks.address(offset), self.size if offset < blocks.final else blocks.last

    def unusual(self, heard: bytes) -> Outcome | None:
        """Something else came: the outcome when it ends the transfer; a duplicate, a late one or nonsense doesn't."""
        if heard[:2] != ERROR_OPCODE:
            return None
        self.detail = error_text(heard)
        return "aborted"

    def refused(self) -> Outcome:
        """The client's port is closed. After the last packet that is a lost last ACK: the client has the file."""
        if self.offset > self._blocks.final:
            return "done"
        self.detail = "the client closed its port"
        return "aborted"

    def tick(self, now: float) -> Outcome | None:
        """Look after the transfer at `due`: send again what was not acknowledged in time, or give up."""
        if self._sent != self._looked_sent:
            self._adapt()
        if now < self.due:
            return None
        if now - self.sent_at >= GIVE_UP:
            return "timeout"
        self._tries += 1
        self._stalled = now - self.sent_at
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
        sent = self._sent
        blocks = sent - max(self._looked_sent, 0)
        if blocks >= 4:
            mean = (self.sent_at - self._looked_at - self._stalled) / blocks
            self._timeout = min(max(4 * mean, SHORTEST_TIMEOUT), FIRST_TIMEOUT)
        self._looked_at = self.sent_at
        self._stalled = 0.0
        self._looked_sent = sent
        self._tries = 0
        self.due = self.sent_at + self._timeout

    def _resend(self) -> None:
        sent = self._sent
        self._send(packet(self._blocks, sent - 1) if sent else self._oack)
