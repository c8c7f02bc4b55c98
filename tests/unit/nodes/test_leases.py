"""The leases file in dnsmasq's format."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from kestrelpi.nodes import leases
from kestrelpi.nodes.leases import Lease

DNSMASQ = """\
1795302000 dc:a6:32:aa:bb:01 10.77.0.130 raspberrypi 01:dc:a6:32:aa:bb:01
0 b8:27:eb:6c:4c:16 10.77.0.131 * *
1795302001 06-00:11:22:33:44:55 10.77.0.132 * ff:11
1795302002 DC:A6:32:AA:BB:02 10.77.0.133 node with-id
duid 00:01:00:01:2e:11:22:33:dc:a6:32:00:00:01
1795302003 123456 fd00::10 host 00:01
nonsense
1795302004 dc:a6:32:aa:bb:03 10.77.0.999 * *
1795302
"""


def test_reads_what_dnsmasq_writes(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    path.write_text(DNSMASQ)
    found = leases.read(path)
    assert list(found) == ["dc:a6:32:aa:bb:01", "b8:27:eb:6c:4c:16", "dc:a6:32:aa:bb:02"]
    first = found["dc:a6:32:aa:bb:01"]
    assert first == Lease(
        1795302000, "dc:a6:32:aa:bb:01", IPv4Address("10.77.0.130"), "raspberrypi", "01:dc:a6:32:aa:bb:01"
    )
    assert found["b8:27:eb:6c:4c:16"].hostname == ""


def test_expiry() -> None:
    lease = Lease(100, "dc:a6:32:aa:bb:01", IPv4Address("10.77.0.130"))
    assert lease.expired(100)
    assert not lease.expired(99.5)
    assert not Lease(0, lease.mac, lease.address).expired(1e12), "0 is for ever"


def test_the_lease_that_ends_last_counts() -> None:
    mac = "dc:a6:32:aa:bb:01"
    assert leases.parse(f"200 {mac} 10.77.0.2 * *\n100 {mac} 10.77.0.1 * *\n")[mac].address == IPv4Address("10.77.0.2")
    assert leases.parse(f"0 {mac} 10.77.0.2 * *\n100 {mac} 10.77.0.1 * *\n")[mac].address == IPv4Address("10.77.0.2")
    assert leases.parse(f"100 {mac} 10.77.0.2 * *\n0 {mac} 10.77.0.1 * *\n")[mac].address == IPv4Address("10.77.0.1")


def test_round_trip_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    assert leases.read(path) == {}
    found = leases.parse(DNSMASQ)
    leases.write(path, found)
    assert leases.read(path) == found
    assert path.read_text().splitlines()[1] == "0 b8:27:eb:6c:4c:16 10.77.0.131 * *"
