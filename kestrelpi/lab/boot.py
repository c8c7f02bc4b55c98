"""The boot loader as a process of its own, inside the Pi's namespace: python -m kestrelpi.lab.boot …"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.loader import BootLoader
from kestrelpi.lab.ports import InterfaceHost


@click.command()
@click.option("--model", required=True)
@click.option("--mac", required=True)
@click.option("--serial", required=True)
@click.option("--interface", required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the downloaded files go.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="Where the report goes, as JSON.")
@click.option("--waits", is_flag=True, help="Wait for SD card and link first, as a real Pi does.")
@click.option("--dhcp-timeout", type=float, help="DHCP_TIMEOUT of the EEPROM's configuration, in seconds.")
def main(
    model: str,
    mac: str,
    serial: str,
    interface: str,
    folder: Path,
    report: Path,
    waits: bool,
    dhcp_timeout: float | None,
) -> None:
    """Boot once; exit status 0 when a kernel would run now, 1 when not."""
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:8.3f}] loader: {text}", flush=True)

    pi = PiSpec(0, model, mac, serial)
    loader = BootLoader(pi, InterfaceHost(interface), folder, say, waits=waits, dhcp_timeout=dhcp_timeout)
    done = loader.run()
    report.write_text(done.to_json())
    sys.exit(0 if done.started else 1)


if __name__ == "__main__":
    main()
