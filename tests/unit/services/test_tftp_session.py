"""The transfer's state machine with a fake line and a fake clock."""

from __future__ import annotations

import struct

from kestrelpi.services.mmsg import bytes_at
from kestrelpi.services.tftp.blocks import Cut, Prepared, one_by_one
from kestrelpi.services.tftp.session import GIVE_UP, Session
from kestrelpi.services.tftp.source import BootFile

OACK = b"\0\6tsize\x003000\0"


def ack(block: int) -> bytes:
    return struct.pack("!HH", 4, block)


def begun(prepared: Prepared, block: int, oack: bytes = b"") -> tuple[Session, list[bytes]]:
    """A transfer, and the packets that it sent."""
    sent: list[bytes] = []
    session = Session(sent.append, prepared, block, oack, 0.0)
    session.begin()
    return session, sent


def make(content: bytes, block: int = 512, oack: bytes = b"") -> tuple[Session, list[bytes]]:
    return begun(Prepared(Cut(content, block), len(content)), block, oack)


def take(session: Session, sent: list[bytes], heard: bytes, now: float = 0.1) -> str | None:
    """What the port does with a packet (tests/integration/test_tftp.py has it with sockets)."""
    if int.from_bytes(heard[:4], "big") != session.expected or len(heard) < 4:
        return session.unusual(heard)
    following = session.advance(now)
    if following is None:
        return "done"
    sent.append(bytes_at(*following))
    return None


def test_a_file_goes_block_by_block() -> None:
    content = bytes(range(256)) * 5  # 1280 bytes: 512 + 512 + 256
    session, sent = make(content)
    assert [take(session, sent, ack(number)) for number in (1, 2, 3)] == [None, None, "done"]
    assert [packet[:4] for packet in sent] == [struct.pack("!HH", 3, number) for number in (1, 2, 3)]
    assert b"".join(packet[4:] for packet in sent) == content


def test_a_file_of_whole_blocks_ends_with_an_empty_one() -> None:
    session, sent = make(b"x" * 1024)
    assert [take(session, sent, ack(number)) for number in (1, 2, 3)] == [None, None, "done"]
    assert sent[-1] == b"\0\3\0\3"


def test_an_empty_file_is_one_empty_block() -> None:
    session, sent = make(b"")
    assert take(session, sent, ack(1)) == "done"
    assert sent == [b"\0\3\0\1"]


def test_options_are_acknowledged_by_ack_0() -> None:
    session, sent = make(b"x" * 3000, oack=OACK)
    assert sent == [OACK]
    assert take(session, sent, ack(1)) is None
    assert sent == [OACK]
    take(session, sent, ack(0))
    assert sent[1][:4] == b"\0\3\0\1"


def test_a_duplicate_ack_is_not_answered() -> None:
    session, sent = make(b"x" * 3000)
    take(session, sent, ack(1))
    assert len(sent) == 2
    for _ in range(5):
        assert take(session, sent, ack(1)) is None
    assert take(session, sent, ack(0)) is None
    assert len(sent) == 2


def test_an_ack_with_bytes_behind_it_counts() -> None:
    session, sent = make(b"x" * 3000)
    take(session, sent, ack(1) + b"\0\0")
    assert sent[-1][:4] == b"\0\3\0\2"


def test_nonsense_is_passed_over() -> None:
    session, sent = make(b"x" * 3000)
    for nonsense in (b"", b"\0", b"\0\4", b"\0\3\0\1data", b"\xff" * 64, ack(7)):
        assert take(session, sent, nonsense) is None
    assert len(sent) == 1


def test_early_terminate_ends_the_transfer() -> None:
    session, sent = make(b"x" * 3000, oack=OACK)
    assert take(session, sent, b"\0\5\0\0Early terminate\0") == "aborted"
    assert session.detail == "0 Early terminate"
    assert session.acknowledged == 0


def test_block_numbers_go_on_at_0() -> None:
    content = b"x" * (8 * 65537 + 3)
    session, sent = begun(one_by_one(BootFile("x", len(content), content), 8), 8)
    for number in range(1, 65538):
        assert take(session, sent, ack(number & 0xFFFF)) is None
    assert [packet[2:4] for packet in sent[65534:]] == [b"\xff\xff", b"\0\0", b"\0\1", b"\0\2"]
    assert take(session, sent, ack(2)) == "done"


def test_silence_is_answered_with_growing_patience_and_an_end() -> None:
    session, sent = make(b"x" * 3000)
    take(session, sent, ack(1), 0.5)
    first = len(sent)
    now = 0.5
    outcome: str | None = None
    gaps: list[float] = []
    while outcome is None:
        assert session.due > now or len(gaps) == 0
        gaps.append(session.due - now)
        now = session.due
        outcome = session.tick(now)
    assert outcome == "timeout"
    assert GIVE_UP <= now - 0.5 < GIVE_UP + 7
    again = sent[first:]
    assert 4 <= len(again) <= 8
    assert set(again) == {sent[first - 1]}
    assert gaps[1:] == sorted(gaps[1:])


def test_progress_forgives_earlier_silence() -> None:
    session, sent = make(b"x" * 30000)
    now = 0.0
    for number in range(1, 20):  # every block is lost twice: 19 blocks of 3 s, far over the limit for one
        while len(sent) < 3 * number:
            now = max(now, session.due)
            assert session.tick(now) is None
        now += 0.01
        assert take(session, sent, ack(number), now) is None
    assert now > GIVE_UP


def test_a_quick_client_is_waited_for_less_than_a_slow_one() -> None:
    for pause, least, most in ((0.0005, 0.25, 0.26), (0.2, 0.5, 1.01)):
        session, sent = make(b"x" * 512 * 7000)
        now, number = 0.0, 0
        while now < 3.0:
            now += pause
            number += 1
            take(session, sent, ack(number), now)
            if session.due <= now:
                session.tick(now)
        assert sent == list(dict.fromkeys(sent)), "a block was sent twice without need"
        session.tick(session.due)
        assert least <= session.due - now <= most + pause


def test_waiting_for_a_lost_packet_does_not_make_the_next_wait_longer() -> None:
    """Ten blocks of 0.02 s, one of them after a second of silence: the line is as quick as it was."""
    session, sent = make(b"x" * 512 * 100)
    now = 0.0
    for number in range(1, 6):
        now += 0.02
        take(session, sent, ack(number), now)
    assert session.tick(session.due) is None and session.resent == 1, "block 6 was lost"
    now = 1.1
    for number in range(6, 11):
        now += 0.02
        take(session, sent, ack(number), now)
    assert session.due - now < 0.5
    assert session.tick(session.due) is None
    assert session.resent == 2 and session.due - now < 1, "block 11 was lost"


def test_a_closed_port_ends_it() -> None:
    session, _ = make(b"x" * 3000)
    assert (session.refused(), session.detail) == ("aborted", "the client closed its port")
    session, _ = make(b"x" * 100)
    assert session.refused() == "done", "only the last ACK was missing"


def test_a_repeated_request_is_told_from_a_new_beginning() -> None:
    session, sent = make(b"x" * 3000)
    assert session.repeated(20.0), "only the first packet was sent"
    take(session, sent, ack(1), 21.0)
    assert session.repeated(22.0), "it moves: the request was under way"
    assert not session.repeated(23.5), "the Pi was switched off and on"
