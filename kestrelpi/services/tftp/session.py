"""One transfer: what to send for what arrives, and when to send again. It knows no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from kestrelpi.services.tftp.blocks import Prepared
from kestrelpi.services.tftp.packets import ACKS, ERROR_OPCODE, error_text

GIVE_UP = 25.0
"""Seconds of silence after which a client is gone; a Pi's own limit is 30 s a file (TFTP_FILE_TIMEOUT)."""
FIRST_TIMEOUT = 1.0
SHORTEST_TIMEOUT = 0.25
"""Seconds. Not less: start4.elf hangs on DATA that it already has, so a late ACK must not be taken for a lost one."""
LONGEST_TIMEOUT = 6.0
MOVING = 2.0
"""Seconds since the last new packet in which a transfer counts as alive; a Pi repeats its request after 2 s."""
READ = 64
"""Bytes of a client's packet that are looked at: an ACK has 4, an ERROR its text."""

Outcome = Literal["done", "aborted", "timeout"]


class Session:
    """The state of one transfer, in lock-step: one packet in flight, the next when exactly that one is acknowledged.

    A duplicate ACK is never answered (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice): only silence makes us
    send again. `readable` is the hot path, 10,000 times a boot: it compares bytes and sends bytes, and leaves the
    bookkeeping of timeouts to `tick`, which looks at it a few times a second.
    """

    __slots__ = (
        "_block",
        "_blocks",
        "_count",
        "_expected",
        "_index",
        "_looked_at",
        "_looked_index",
        "_oack",
        "_receive",
        "_send",
        "_sent_at",
        "_stalled",
        "_timeout",
        "_tries",
        "detail",
        "due",
        "prepared",
        "resent",
        "started",
    )

    def __init__(
        self,
        receive: Callable[[int], bytes],
        send: Callable[[bytes], int],
        prepared: Prepared,
        block: int,
        oack: bytes,
        now: float,
    ) -> None:
        """`receive` and `send` are the connected socket's; they raise BlockingIOError, or OSError when it is over."""
        self._receive = receive
        self._send = send
        self.prepared = prepared
        self._blocks = prepared.blocks
        self._count = len(prepared.blocks)
        self._block = block
        self._oack = oack
        self._index = 0 if oack else 1  # how many DATA packets were sent; 0: the OACK is in flight
        self._expected = ACKS[self._index]
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

    def begin(self) -> Outcome | None:
        """Send the first packet."""
        return self._resend()

    def readable(self, now: float) -> Outcome | None:
        """Take what arrived; the outcome when the transfer is over.

        Reads on after anything but the awaited ACK: the server polls edge-triggered and won't call again for it.
        """
        try:
            while True:
                packet = self._receive(READ)
                if packet != self._expected:
                    if packet[:2] == ERROR_OPCODE:
                        self.detail = error_text(packet)
                        return "aborted"
                    if packet[:4] != self._expected:
                        continue  # a duplicate, a late one, or nonsense; (an ACK with bytes behind it is an ACK)
                index = self._index
                if index >= self._count:
                    return "done"
                self._index = index + 1
                self._expected = ACKS[(index + 1) & 0xFFFF]
                self._sent_at = now
                self._send(self._blocks[index])
                return None
        except BlockingIOError:
            return None
        except ConnectionRefusedError:
            return self._gone()
        except OSError:
            return None  # no route, no buffer, a firewall: perhaps only now; the timeout decides

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
        return self._resend()

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

    def _resend(self) -> Outcome | None:
        try:
            self._send(self._blocks[self._index - 1] if self._index else self._oack)
        except ConnectionRefusedError:
            return self._gone()
        except OSError:
            return None
        return None

    def _gone(self) -> Outcome:
        """The client's port is closed. After the last packet that is a lost last ACK: the client has the file."""
        if self._index >= self._count:
            return "done"
        self.detail = "the client closed its port"
        return "aborted"
