"""What a node reads from power-on to the login prompt, and what it takes of its RAM: our image, and a stock NFS root.

Run as root: python benches/boot.py [--root DIR] [--modules LIST] [--only NAMES] [--model MODEL]. It builds the images
in a folder of its own, which it removes (DIR is kept, and what is there is used again), and boots one emulated Pi after
the other, alone.

`ours` is an image as kestrelpi builds it. `folder` is the same with `root: nfs`. `stock` has the same packages as one
would serve them by hand: the folder over NFS with mount's own options, no unit switched off, /etc/.updated and
/var/.updated not there (debootstrap makes none, so each boot does what a first boot does), Debian's kernel as the
package has it (not compressed), the full firmware (start4.elf). Its initramfs is ours: update-initramfs takes 8 minutes
of emulation and makes 36 MB of it, which are added to what was loaded.

Bytes and calls at the login prompt are counted on the frontend: by the TFTP client of the lab, and by the TCP
connections of the NFS server (TCP_INFO: bytes both ways, and segments with data that came from the node: a call is
one). At `ready` the node counts its calls itself (/proc/net/rpc/nfs), which checks the former.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi import config, run
from kestrelpi.cli.table import print_table
from kestrelpi.config import Config
from kestrelpi.images.assemble import UPDATED
from kestrelpi.images.build import build
from kestrelpi.images.store import Generation
from kestrelpi.lab import demo
from kestrelpi.lab.lab import Lab
from kestrelpi.lab.tftp import Result
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths, data_dir

CONFIG = """\
network: {{address: 10.95.0.1/24}}
services: {{nfs: {{backend: ganesha}}}}
images:
  ours: {{modules: [{modules}], root: squashfs}}
  folder: {{modules: [{modules}], root: nfs}}
  stock: {{modules: [{modules}], root: nfs}}
groups:
  ours: {{image: ours}}
  folder: {{image: folder}}
  stock: {{image: stock, config_txt: ["start_file=start4.elf", "fixup_file=fixup4.dat"]}}
"""
NAMES = ("ours", "folder", "stock")
OUR_OPTIONS = ",nocto,actimeo=3600,noatime"
FUNCTIONS = "initramfs/lib/kestrelpi/functions"
SWITCHED_OFF = "post-install.d/20-units"
STOCK_INITRAMFS = 36_000_000
"""Bytes of what update-initramfs made of such an image, once, under emulation."""
MEGA = 1e6
PROMPT_WITHIN = 900.0
ASK = (
    "sed -n 's/^rpc //p' /proc/net/rpc/nfs; df -k --output=used / | tail -n 1; "
    "sed -n 's/^Mem[TA][a-z]*: *//p' /proc/meminfo"
)


@dataclass(frozen=True)
class Wire:
    """What the NFS server's connections carried."""

    bytes: int
    calls: int


@dataclass(frozen=True)
class Measured:
    """One boot."""

    tftp: int
    prompt: Wire
    ready: Wire
    counted: int
    """Calls that the node counted until ready."""
    seconds: float
    """From the kernel's start to the login prompt."""
    upper: int
    """Bytes of the RAM overlay at ready."""
    used: int
    """Bytes of RAM that aren't available any more at ready."""


def wire(lab: Lab) -> Wire:
    """What ss(8) says of the connections to the NFS server's port."""
    text = run.run(lab.enter(["ss", "-tinH", "sport", "=", f":{lab.config.services.nfs.port}"])).stdout

    def total(name: str) -> int:
        return sum(int(value) for value in re.findall(rf"\b{name}:(\d+)", text))

    return Wire(total("bytes_sent") + total("bytes_received"), total("data_segs_in"))


def make_stock(paths: Paths) -> None:
    """The user's files that take our changes out of the image `stock`."""
    mine = paths.etc / "images/stock"
    for name in (SWITCHED_OFF, f"overlays/{FUNCTIONS}"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
    (mine / SWITCHED_OFF).write_text("")  # an empty file takes a script out
    text = (data_dir() / "overlays" / FUNCTIONS).read_text()
    assert OUR_OPTIONS in text
    (mine / "overlays" / FUNCTIONS).write_text(text.replace(OUR_OPTIONS, ""))


def unpack_stock(generation: Generation) -> None:
    """What no setting of ours gives: the plain kernel, and a root that looks as if it had never run."""
    kernel = generation.boot / "vmlinuz"
    data = kernel.read_bytes()
    if data[:2] == b"\x1f\x8b":
        kernel.unlink()  # the compressed one may be a link of others
        kernel.write_bytes(gzip.decompress(data))
    for name in UPDATED:
        (generation.root / name).unlink(missing_ok=True)


def boot(paths: Paths, found: Config, name: str, model: str) -> Measured:
    """Boot one Pi of the group `name` that nobody has seen."""
    demo.forget_nodes(paths, found)
    with Lab(paths, found, attached=True) as lab:
        lab.down()
        lab.up(lab.pis([model]))
        [node] = demo.register(paths, found, name, 1, print)
        folder = lab.folder_of(1)
        wait_for_prompt(folder.console)
        at_prompt = wire(lab)
        seconds = time.time() - folder.read_state().since
        demo.wait_until_ready(paths, lab, [node], print)
        at_ready = wire(lab)
        report = folder.read_report()
        assert report is not None
        tftp = sum(file.size for file in report.files if file.result == Result.GOT)
        extra = STOCK_INITRAMFS - initramfs_size(paths, name) if name == "stock" else 0
        counted, upper, used = ask(paths, found, lab, node)
        return Measured(tftp + extra, at_prompt, at_ready, counted, seconds, upper, used)


def initramfs_size(paths: Paths, image: str) -> int:
    return (paths.images / image / "current/boot/initramfs.img").stat().st_size


def wait_for_prompt(console: Path) -> None:
    deadline = time.monotonic() + PROMPT_WITHIN
    while b" login: " not in console.read_bytes():
        assert time.monotonic() < deadline, f"no login prompt on {console}"
        time.sleep(0.25)


def ask(paths: Paths, found: Config, lab: Lab, node: Node) -> tuple[int, int, int]:
    """NFS calls, bytes in the upper layer and bytes of RAM in use, as the node says."""
    said = run.run(lab.enter(ssh_command(paths, found, node, [ASK])), timeout=300).stdout.splitlines()
    calls, upper = int(said[0].split()[0]), int(said[1])
    total, available = (int(line.split()[0]) for line in said[2:4])
    return calls, upper * 1024, (total - available) * 1024


def table(results: dict[str, Measured]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: a measure a row, an image a column."""

    def row(what: str, values: Sequence[str], target: str = "") -> tuple[str, ...]:
        return (what, *values, target)

    def mega(values: Sequence[int]) -> list[str]:
        return [f"{value / MEGA:.1f} MB" for value in values]

    every = list(results.values())
    rows = [
        row("TFTP", mega([one.tftp for one in every]), "14 MB"),
        row("NFS bytes at the login prompt", mega([one.prompt.bytes for one in every]), "45 MB"),
        row("NFS calls at the login prompt", [str(one.prompt.calls) for one in every], "1500"),
        row("NFS bytes at ready", mega([one.ready.bytes for one in every])),
        row("NFS calls at ready", [str(one.ready.calls) for one in every]),
        row("the same, as the node counts", [str(one.counted) for one in every]),
        row("kernel to login prompt", [f"{one.seconds:.0f} s" for one in every]),
        row("RAM of the upper layer", mega([one.upper for one in every]), "32 MB"),
        row("RAM in use", mega([one.used for one in every])),
    ]
    return ("MEASURE", *(name.upper() for name in results), "TARGET"), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="build here, and keep it")
    parser.add_argument("--modules", default="openmp, openmpi, slurm", help="the images' modules")
    parser.add_argument("--only", default=",".join(NAMES), help="which images")
    parser.add_argument("--model", default="4", help="which Pi")
    options = parser.parse_args()
    root = options.root or Path(tempfile.mkdtemp(prefix="kestrelpi-bench-", dir="/var/tmp"))
    root.chmod(0o755)  # munge and slurm are users of their own
    paths = Paths(root)
    try:
        paths.etc.mkdir(parents=True, exist_ok=True)
        paths.config.write_text(CONFIG.format(modules=options.modules))
        make_stock(paths)
        found = config.load(paths.config)
        results = {}
        for name in options.only.split(","):
            generation = build(paths, found, name)
            if name == "stock":
                unpack_stock(generation)
            results[name] = boot(paths, found, name, options.model)
    finally:
        if not options.root:
            shutil.rmtree(root)
    print_table(*table(results))


if __name__ == "__main__":
    main()
