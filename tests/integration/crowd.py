"""Pis that ask for an address again and again, and then do nothing with it: COUNT of them, on eth0, until ended."""

from __future__ import annotations

import socket
import sys
import time

from tests.integration.dhcp_probe import frame
from tests.integration.test_dhcp import discover

PAUSE = 2.0
"""Seconds between two DISCOVERs of each."""


def main(count: int) -> None:
    """Ask."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind(("eth0", 0x0800))
    while True:
        for number in range(count):
            sock.send(frame(discover(f"dc:a6:32:ff:00:{number:02x}"), False))
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
