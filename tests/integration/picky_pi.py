"""A Pi 4 whose EEPROM was told to wait for another boot string (PXE_OPTION43): MAC SERIAL SECONDS. It takes no offer
of ours and ends with status 1."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from kestrelpi.lab import profiles
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.loader import BootLoader
from kestrelpi.lab.ports import InterfaceHost

PICKY = replace(
    profiles.PROFILES["4"],
    name="picky",
    dhcp=replace(profiles.EEPROM_4, boot_string=b"Another Boot", accepts_tftp_name=False),
)


def main(mac: str, serial: str, seconds: str) -> int:
    """Boot once."""
    assert isinstance(profiles.PROFILES, dict)
    profiles.PROFILES["picky"] = PICKY
    with tempfile.TemporaryDirectory() as folder:
        pi = PiSpec(0, "picky", mac, serial)
        report = BootLoader(pi, InterfaceHost("eth0"), Path(folder), print, dhcp_timeout=float(seconds)).run()
    return 0 if report.started else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
