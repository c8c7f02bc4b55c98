"""A stock dnsmasq in the lab's namespace, set up as the projects that boot Pis with it publish."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kestrelpi import run
from kestrelpi.lab.network import LabNetwork
from kestrelpi.lab.pdeathsig import dies_with_us

COMMON = """
port=0
user=root
keep-in-foreground
log-dhcp
log-facility=-
dhcp-leasefile={folder}/leases
pid-file={folder}/pid
bind-interfaces
interface=br0
"""
DHCP = "dhcp-range=10.99.0.100,10.99.0.199,255.255.255.0,1h\n"
TFTP = "enable-tftp\ntftp-root={tftp}\n"
LTSP = DHCP + TFTP + 'pxe-service=X86PC,"Raspberry Pi Boot   ",unused\n'
"""The menu with three spaces, next to the address: LTSP's."""
OPTION_66 = DHCP + TFTP + 'dhcp-option=66,"10.99.0.1"\n'
"""No menu, only the server's address as text."""
BINARY_66 = DHCP + TFTP + "dhcp-option=66,10:99:0:1\n"
SIADDR = DHCP + TFTP + "dhcp-boot=bootcode.bin\n"
ROUTER = "interface=br0\ndhcp-range=10.99.0.100,10.99.0.199,255.255.255.0,1h\n"
"""A home router: an address and nothing of booting."""
PROXY = TFTP + 'dhcp-range=10.99.0.2,proxy\npxe-service=0,"Raspberry Pi Boot   "\ndhcp-reply-delay=1\n'
"""Beside the router: piserver's."""


@contextmanager
def dnsmasq(network: LabNetwork, folder: Path, config: str, values: Mapping[str, object]) -> Iterator[Path]:
    """Run it in the lab's namespace; yields its log."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "dnsmasq.conf", folder / "log"
    file.write_text((COMMON + config).format(folder=folder, **values))
    with log.open("wb") as out:
        argv = network.enter(dies_with_us(["dnsmasq", f"--conf-file={file}"]))
        process = run.start(argv, output=out)
        try:
            while "DHCP" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            yield log
        finally:
            run.stop(process)
