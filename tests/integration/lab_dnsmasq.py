"""A stock dnsmasq in the lab's network, set up as the projects that boot Pis with it publish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kestrelpi import run
from kestrelpi.lab.network import BRIDGE, LabNetwork
from kestrelpi.pdeathsig import dies_with_us
from tests.waiting import until

COMMON = """
port=0
user=root
keep-in-foreground
log-dhcp
log-facility=-
no-ping
dhcp-leasefile={folder}/leases
pid-file={folder}/pid
bind-dynamic
interface={interface}
"""
RANGE = "dhcp-range=10.99.0.100,10.99.0.199,255.255.255.0,1h\n"
TFTP = "enable-tftp\ntftp-root={tftp}\n"
LTSP = RANGE + TFTP + 'pxe-service=X86PC,"Raspberry Pi Boot   ",unused\n'
"""Menu with three spaces and addresses from one server."""
NO_SPACES = RANGE + TFTP + 'pxe-service=0,"Raspberry Pi Boot"\n'
OPTION_66 = RANGE + TFTP + 'dhcp-option-force=66,"10.99.0.1"\n'
"""No menu, only the server's address as text; dnsmasq ends it with a NUL."""
BINARY_66 = RANGE + TFTP + "dhcp-option-force=66,0a:63:00:01\n"
NEXT_SERVER = RANGE + TFTP + "dhcp-boot=bootcode.bin\n"
"""siaddr and a boot file, as for a PC."""
ROUTER = RANGE + "dhcp-option=3,10.99.0.2\n"
"""A home router: addresses, and nothing of booting."""
ONLY_A_PROXY = TFTP + 'dhcp-range=10.99.0.2,proxy\npxe-service=0,"Raspberry Pi Boot"\n'
"""Somebody else's boot server: no addresses, but the menu for every boot loader."""
PISERVER = (
    TFTP
    + """
dhcp-mac=set:piserver,b8:27:eb:*:*:*
dhcp-mac=set:piserver,dc:a6:32:*:*:*
dhcp-mac=set:piserver,e4:5f:01:*:*:*
dhcp-mac=set:piserver,2c:cf:67:*:*:*
dhcp-mac=set:piserver,88:a2:9e:*:*:*
dhcp-range=tag:piserver,10.99.0.1,proxy
pxe-service=tag:piserver,0,"Raspberry Pi Boot"
dhcp-reply-delay=tag:piserver,1
tftp-unique-root=mac
"""
)
"""Beside a router: only the menu, and a folder for each MAC."""


@contextmanager
def dnsmasq(
    network: LabNetwork,
    folder: Path,
    config: str,
    values: Mapping[str, object],
    *,
    namespace: str = "",
    interface: str = BRIDGE,
) -> Iterator[Path]:
    """Run it in the lab's namespace or another one, with `values` filled into `config`; yields its log."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "dnsmasq.conf", folder / "log"
    file.write_text((COMMON + config).format(folder=folder, interface=interface, **values))
    with log.open("wb") as out:
        process = run.start(dies_with_us(network.enter(["dnsmasq", f"--conf-file={file}"], namespace)), output=out)
    try:
        until(lambda: "DHCP" in log.read_text() or process.poll() is not None, log.read_text, 20)
        assert process.poll() is None, log.read_text()
        yield log
    finally:
        run.stop(process)
