"""The configuration in docs/how-to/beside-another-dhcp-server.md, run by the dnsmasq that it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kestrelpi import run
from kestrelpi.paths import data_dir
from tests.integration.lab_dnsmasq import dnsmasq
from tests.integration.test_lab_dnsmasq import Bench, bench

__all__ = ["bench"]

PAGE = data_dir() / "docs/how-to/beside-another-dhcp-server.md"
TFTP = "\nenable-tftp\ntftp-root={tftp}\n"
"""In the place of kestrelpi's TFTP, which has the same address and port."""


def documented(folder: Path) -> str:
    """The page's configuration for the lab's bridge and addresses."""
    block = re.search(r"```\n(# /etc/dnsmasq.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    text = block[1].replace("10.77.0.", "10.99.0.").replace("eth1", "br0").replace("port=0\n", "")
    text = text.replace("dhcp-leasefile=/var/lib/kestrelpi/dhcp.leases\n", "")  # the test's own stands in COMMON
    assert "/etc/kestrelpi/dnsmasq-hosts" in text
    return text.replace("/etc/kestrelpi/dnsmasq-hosts", str(folder / "hosts")) + TFTP


@pytest.mark.parametrize("model", ["3B", "3B+", "4", "4-old", "5"])
def test_every_model_takes_the_offer_and_a_node_gets_its_own_address(bench: Bench, tmp_path: Path, model: str) -> None:
    pi = bench.pis[model]
    (tmp_path / "hosts").write_text(f"{pi.mac},10.99.0.11,rpi1\n")
    bench.serve()
    with dnsmasq(bench.network, tmp_path / "dnsmasq", documented(tmp_path), {"tftp": bench.tftp}):
        report = bench.boot(pi)
    assert report.kernel == "vmlinuz", report
    assert report.address == "10.99.0.11"


def test_the_script_writes_a_hosts_file_that_dnsmasq_reads(tmp_path: Path) -> None:
    script = re.search(r"<<'END'\n(#!/bin/bash.*?)\nEND\n", PAGE.read_text(), re.DOTALL)
    assert script
    path, stage, nodes = tmp_path / "95-dnsmasq-hosts", tmp_path / "stage", tmp_path / "nodes"
    path.write_text(script[1] + "\n")
    path.chmod(0o755)
    nodes.write_text("rpi1\t10.77.0.11\tdc:a6:32:01:02:03\t1a2b3c4d\trpi\tdefault\n")
    run.run([path], env={"KESTRELPI_STAGE": str(stage), "KESTRELPI_NODES": str(nodes)})
    assert (stage / "etc/kestrelpi/dnsmasq-hosts").read_text() == "dc:a6:32:01:02:03,10.77.0.11,rpi1\n"
    run.run(["shellcheck", path])
