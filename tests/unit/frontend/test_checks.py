"""The doctor's judgements on the frontend, from made-up facts: each fault, and the health beside it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from kestrelpi.config import Config, parse
from kestrelpi.finding import Finding, Severity
from kestrelpi.frontend import checks, probes
from kestrelpi.frontend.foreign import answer, discover
from kestrelpi.images.store import Store
from kestrelpi.nodes.node import Node
from kestrelpi.nodes.registry import Registry
from kestrelpi.paths import Paths
from kestrelpi.services.dhcp import wire
from kestrelpi.services.dhcp.packet import Kind, Message, Reply, build
from kestrelpi.services.wire_facts import Facts, Heard

CONFIG = parse("network: {interface: eth1, address: 10.77.0.1/24}\n")
NOW = 1_800_000_000.0


def names(findings: Iterable[Finding]) -> list[str]:
    return [one.name for one in findings]


def link(name: str, address: str = "", **more: Any) -> Mapping[str, Any]:
    return {"ifname": name, "addr_info": [{"local": address}] if address else [], "flags": ["UP"], **more}


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ([link("lo", "127.0.0.1"), link("eth1", "10.77.0.1")], []),
        ([link("eth1@if4", "10.77.0.1", operstate="UP")], []),
        ([link("eth0", "10.77.0.1")], ["no-interface"]),
        ([link("eth1", "192.168.1.5")], ["no-address"]),
        ([link("eth0", "10.77.0.1"), link("eth1")], ["no-address"]),
        ([link("eth1", "10.77.0.1", operstate="DOWN")], ["no-link"]),
        ([link("eth1", "10.77.0.1", flags=["NO-CARRIER", "UP"])], ["no-link"]),
    ],
)
def test_interface_and_address(links: list[Mapping[str, Any]], found: list[str]) -> None:
    assert names(checks.network(links, CONFIG)) == found


def test_without_an_interface_the_one_with_the_address_counts() -> None:
    assert names(checks.network([link("br0", "10.77.0.1")], Config())) == []
    assert names(checks.network([link("br0", "10.77.0.1", operstate="DOWN")], Config())) == ["no-link"]


SS = """\
udp   UNCONN 0 0          0.0.0.0%eth1:67 0.0.0.0:* users:(("dnsmasq",pid=812,fd=4))
udp   UNCONN 0 0             127.0.0.1:53 0.0.0.0:* users:(("systemd-resolve",pid=400,fd=12))
udp   UNCONN 0 0                  [::]:69    [::]:* users:(("in.tftpd",pid=900,fd=4))
tcp   LISTEN 0 4096                  *:8067     *:*
"""


def test_who_has_our_ports() -> None:
    found = list(checks.ports(probes.listeners(SS), CONFIG))
    said = {one.what.split(", which ")[1].split()[0]: one.what for one in found}
    assert set(said) == {"dhcp", "tftp", "http"}, "53 is only taken on another address"
    assert said["dhcp"].startswith("dnsmasq (process 812) has udp port 67")
    assert said["http"].startswith("somebody has tcp port 8067")


def test_silent_services() -> None:
    found = list(checks.services({"http": "", "nfs": "Connection refused"}))
    assert names(found) == ["nfs-silent"]
    assert "Connection refused" in found[0].what


def test_others_on_the_wire() -> None:
    facts = Facts(
        {
            "10.77.0.2": Heard(NOW - 9, NOW - 5, "dhcp", 3),
            "10.77.0.3": Heard(NOW - 9, NOW - 5, "proxy"),
            "10.77.0.4": Heard(1, NOW - 90_000, "dhcp"),
        },
        {"00:1c:0e:87:78:00": Heard(NOW - 9, NOW - 5, "RSTP"), "00:1c:0e:87:78:01": Heard(1, 2, "STP")},
    )
    found = list(checks.wire(facts, NOW))
    assert names(found) == ["foreign-dhcp", "foreign-proxy", "stp-seen"]
    assert [one.severity for one in found] == [Severity.WARNING, Severity.WARNING, Severity.HINT]


def test_images_that_are_not_there(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    config = parse("images: {default: {}, big: {}, other: {}}\ngroups: {rpi: {}, work: {image: big}}\n")
    pinned = Node("rpi2", "dc:a6:32:00:00:02", "rpi", IPv4Address("10.77.0.12"), pin="20260101")
    registry = Registry.of([Node("work1", "dc:a6:32:00:00:01", "work", IPv4Address("10.77.0.11")), pinned])
    found = {one.what: one.severity for one in checks.images(Store(paths), config, registry)}
    assert len(found) == 3 and set(found.values()) == {Severity.ERROR}
    for image in ("default", "big"):
        (paths.images / image / "generations/20260101-000000-00000001").mkdir(parents=True)
        (paths.images / image / "current").symlink_to("generations/20260101-000000-00000001")
    assert names(checks.images(Store(paths), config, registry)) == []
    (paths.images / "big/current").unlink()
    (finding,) = checks.images(Store(paths), config, Registry.of([pinned]))
    assert (finding.name, finding.severity) == ("image-not-built", Severity.WARNING), "no node boots it yet"


@pytest.mark.parametrize(
    ("free", "severity"), [(100 << 20, Severity.ERROR), (1 << 30, Severity.WARNING), (9 << 30, None)]
)
def test_disk(free: int, severity: Severity | None) -> None:
    assert [one.severity for one in checks.disk(free, "/var")] == ([] if severity is None else [severity])


def test_clock() -> None:
    newest = "20261122-013000-1a2b3c4d"
    assert names(checks.clock(0.0, newest, True)) == ["clock-wrong"]
    assert names(checks.clock(1_795_400_000.0, newest, False)) == ["clock-unsynchronised"]
    assert names(checks.clock(1_795_400_000.0, newest, True)) == []
    assert names(checks.clock(0.0, "", True)) == []


def test_failed_services_of_modules() -> None:
    assert names(checks.modules({})) == []
    (finding,) = checks.modules({"slurmctld": "no such user\nmore"})
    assert finding.what == "slurmctld does not run: no such user"


def reply(*fields: int, xid: int = 7) -> bytes:
    return struct.pack(f"!{len(fields) + 1}I", xid, *fields)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (reply(1, 0, 0, 0, 0), ""),
        (reply(1, 0, 0, 0, 2, 3, 4), "version"),
        (reply(1, 0, 0, 0, 1), "no NFS"),
        (reply(1, 1, 0, 2, 2), "denied"),
        (reply(1, 0, 0, 0, 0, xid=8), "something else"),
        (reply(1, 0), "cut off"),
        (reply(1, 0, 0, 9000, 0), "no NFS"),
        (b"HTTP/1.0", "no reply"),
        (b"", "no reply"),
    ],
)
def test_the_reply_of_nfs(record: bytes, wrong: str) -> None:
    said = probes.null_reply(7, record)
    assert wrong in said and bool(wrong) == bool(said)


def test_the_call_of_nfs() -> None:
    call = probes.null_call(7, 4)
    assert call[:4] == b"\x80\0\0\x28" and len(call) == 44
    assert struct.unpack("!6I", call[4:28]) == (7, 0, 2, 100003, 4, 0)


MAC = bytes.fromhex("02000000000a")
US = IPv4Address("10.77.0.1")


def offer(server: str, address: str, xid: int = 7) -> bytes:
    asked = Message(1, Kind.DISCOVER, xid, 0x8000, MAC.hex(":"))
    options = [("message-type", 2), ("server_id", server)]
    payload = build(Reply(asked, IPv4Address(address), IPv4Address(0), b"", options))
    return wire.frame(MAC, b"\xff" * 6, IPv4Address(server), IPv4Address("255.255.255.255"), payload)


def test_asking_who_else_gives_addresses() -> None:
    assert answer(offer("10.77.0.2", "10.77.0.130"), 7, US) == ("10.77.0.2", "dhcp")
    assert answer(offer("10.77.0.2", "0.0.0.0"), 7, US) == ("10.77.0.2", "proxy")
    assert answer(offer("10.77.0.1", "10.77.0.130"), 7, US) is None, "we are no other"
    assert answer(offer("10.77.0.2", "10.77.0.130", xid=8), 7, US) is None, "for somebody else"
    assert answer(b"\0" * 20, 7, US) is None


def test_the_question_is_a_whole_frame() -> None:
    raw = discover(MAC, 7)
    assert (raw[:6], raw[6:12], raw[12:14]) == (b"\xff" * 6, MAC, b"\x08\0")
    assert wire.checksum(raw[14:34]) == 0
    assert int.from_bytes(raw[16:18], "big") == len(raw) - 14
    assert int.from_bytes(raw[38:40], "big") == len(raw) - 34
    from kestrelpi.services.dhcp.packet import parse as parse_dhcp

    said = parse_dhcp(wire.udp_payload(raw))
    assert (said.kind, said.xid, said.broadcast, said.pxe, said.mac) == (Kind.DISCOVER, 7, True, True, MAC.hex(":"))
