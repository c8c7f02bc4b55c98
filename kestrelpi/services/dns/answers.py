"""Replies that were worked out once and are sent again, byte for byte, to whoever asks the same."""

from __future__ import annotations

from collections.abc import Mapping

REMEMBERED = 32768
"""Replies that are kept, some 20 MB: the addresses of 10,000 nodes, A and AAAA, and a third more."""
OPT = 11
"""Bytes of EDNS' record without options (RFC 6891 section 6.1.2)."""


class Answers:
    """Packed replies over UDP by query, both without the id.

    `exact` has them by the query's bytes as they are. Clients that mix upper and lower case at random, against forgers,
    are answered from the same replies in `spelled`, which echoes their question as they spelled it.
    """

    def __init__(self) -> None:
        self._exact: dict[bytes, bytes] = {}
        self._folded: dict[tuple[bytes, bytes, bytes], bytes] = {}

    @property
    def exact(self) -> Mapping[bytes, bytes]:
        return self._exact

    def spelled(self, query: bytes) -> bytes | None:
        """The reply to a query (both with the id) whose name is known in another spelling; None: work it out."""
        end = name_end(query)
        known = self._folded.get(_key(query, end)) if end else None
        return None if known is None else query[:2] + known[:10] + query[12:end] + known[end - 2 :]

    def remember(self, query: bytes, reply: bytes) -> None:
        """Keep the reply to a query, unless its like won't come again: random cookies (RFC 7873) make each unique."""
        end = name_end(query)
        if not end or len(query) > end + 4 + OPT or reply[12:end] != query[12:end]:
            return
        if len(self._folded) >= REMEMBERED:
            self.forget()
        key = _key(query, end)
        if key[1] == query[12:end]:
            self._exact[query[2:]] = reply[2:]
        self._folded[key] = reply[2:]

    def forget(self) -> None:
        """Somebody's name or address is another one now."""
        self._exact.clear()
        self._folded.clear()


def name_end(query: bytes) -> int:
    """Where the first question's name ends, after its last zero; 0: there is no whole name, or a compressed one."""
    at, length = 12, len(query)
    while at < length:
        label = query[at]
        at += 1
        if label == 0:
            return at
        if label > 63:
            return 0
        at += label
    return 0


def _key(query: bytes, end: int) -> tuple[bytes, bytes, bytes]:
    """Only the name is taken in lower case: a type like 65 (HTTPS) looks like a letter too."""
    return query[2:12], query[12:end].lower(), query[end:]
