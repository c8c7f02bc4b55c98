"""The neighbour table as the kernel prints it."""

from __future__ import annotations

from pathlib import Path

from kestrelpi.services.neighbours import Lately, mac_of

TABLE = """\
IP address       HW type     Flags       HW address            Mask     Device
10.77.0.11       0x1         0x2         DC:a6:32:00:00:01     *        br0
10.77.0.12       0x1         0x0         00:00:00:00:00:00     *        br0
"""


def test_mac_of(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(TABLE)
    assert mac_of("10.77.0.11", table) == "dc:a6:32:00:00:01"
    assert mac_of("10.77.0.12", table) is None, "an unanswered ARP request names nobody"
    assert mac_of("10.77.0.1", table) is None


def test_the_table_of_a_moment_ago(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(TABLE)
    now = 100.0
    lately = Lately(table, lambda: now)
    assert lately.mac_of("10.77.0.11") == "dc:a6:32:00:00:01"
    table.write_text(TABLE.replace("00:01", "00:02").replace("00:00:00:00:00:00", "dc:a6:32:00:00:05"))
    assert lately.mac_of("10.77.0.12") is None and lately.mac_of("10.77.0.11") == "dc:a6:32:00:00:01"
    now += 0.06
    assert lately.mac_of("10.77.0.12") == "dc:a6:32:00:00:05", "an address that isn't known is looked for soon"
    table.write_text(TABLE)
    now += 0.6
    assert lately.mac_of("10.77.0.11") == "dc:a6:32:00:00:01" and lately.mac_of("10.77.0.12") is None
