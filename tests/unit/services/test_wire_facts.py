"""What is heard of others: DHCP servers, and switches that speak spanning tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from kestrelpi.services import wire_facts
from kestrelpi.services.spanning_tree import parse
from kestrelpi.services.wire_facts import HEARTBEAT, MOST, Heard, WireFacts

SWITCH = "001c0e877800"
PORT = "001c0e877804"
BODY = "00 8001001c0e878500 00000004 8064001c0e877800 8004 0100 1400 0200 0f00".replace(" ", "")
STP = f"0180c2000000 {PORT} 0026 424203 0000 00 00 {BODY}"
RSTP = f"0180c2000000 {PORT} 0027 424203 0000 02 02 {BODY} 00"
CHANGE = f"0180c2000000 {PORT} 0007 424203 0000 00 80"
PVST = f"01000ccccccd {PORT} 0032 aaaa0300000c010b 0000 00 00 {BODY} 0000 0000 0002 0001"


def frame(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("text", "bridge", "protocol"),
    [
        (STP, SWITCH, "STP"),
        (RSTP, SWITCH, "RSTP"),
        (CHANGE, PORT, "STP"),
        (PVST, SWITCH, "PVST+"),
    ],
)
def test_frames_of_spanning_tree(text: str, bridge: str, protocol: str) -> None:
    assert parse(frame(text)) == (bytes.fromhex(bridge).hex(":"), protocol)


@pytest.mark.parametrize(
    "text",
    [
        STP.replace("0180c2000000", "0180c200000e"),  # LLDP's group
        STP.replace("424203", "e0e003"),  # IPX
        STP.replace("424203 0000", "424203 0001"),  # GARP
        f"0180c2000000 {PORT} 0026 424203",
        "",
    ],
)
def test_other_frames(text: str) -> None:
    assert parse(frame(text)) is None


@pytest.mark.parametrize("length", range(52))
def test_a_frame_that_was_cut_off_does_no_harm(length: int) -> None:
    parse(frame(STP)[:length])
    parse(frame(PVST)[:length])


def written(facts: WireFacts, now: float, force: bool = False) -> bool:
    """Whether something was due, which is written then."""
    write = facts.due(now, force)
    if write:
        write()
    return write is not None


def test_facts_are_written_at_once_and_then_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "wire.json"
    facts = WireFacts(path)
    assert not written(facts, 1.0, force=True), "nothing was heard"
    facts.server("10.77.0.254", False, 1000)
    assert written(facts, 1000.5)
    assert wire_facts.read(path).servers == {"10.77.0.254": Heard(1000, 1000, "dhcp")}
    facts.server("10.77.0.254", True, 1010)
    assert not written(facts, 1010)
    assert wire_facts.read(path).servers["10.77.0.254"].last == 1000
    assert written(facts, 1000.5 + HEARTBEAT)
    assert wire_facts.read(path).servers["10.77.0.254"] == Heard(1000, 1010, "dhcp", 2)
    facts.bridge("00:1c:0e:87:78:00", "RSTP", 1020)
    assert written(facts, 1061)
    again = WireFacts(path)
    assert again.bridges == {"00:1c:0e:87:78:00": Heard(1020, 1020, "RSTP")}
    assert again.servers["10.77.0.254"].times == 2


def test_made_up_servers_push_out_the_oldest(tmp_path: Path) -> None:
    facts = WireFacts(tmp_path / "wire.json")
    for number in range(MOST + 10):
        facts.server(f"10.0.0.{number}", False, 1000 + number)
    assert len(facts.servers) == MOST
    assert "10.0.0.9" not in facts.servers and "10.0.0.10" in facts.servers


@pytest.mark.parametrize("text", ["", "[]", "{", '{"servers": {"a": {"x": 1}}, "bridges": {}}'])
def test_a_file_that_is_not_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wire.json"
    path.write_text(text)
    assert wire_facts.read(path) == wire_facts.Facts()
