"""What the machine that we run on is like: systemd or not, which NFS server, is `kestrelpi serve` running."""

from __future__ import annotations

import fcntl
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.paths import Paths
from kestrelpi.services import nfs

SYSTEMD = Path("/run/systemd/system")
"""Is there where systemd is process 1 (sd_booted(3))."""


@dataclass(frozen=True)
class Machine:
    """The facts that decide what reconfigure writes and how it reloads."""

    systemd: bool
    """The services are units of systemd. Never with another root than `/`: its units aren't this machine's."""
    nfs: str
    """`kernel`, `ganesha` or `none`."""
    program: str
    """The path of the `kestrelpi` program, for units."""
    privileged: bool
    """The root is `/`: the machine's own services are ours to reload."""


def machine(paths: Paths, config: Config) -> Machine:
    """This machine."""
    own = paths.root == Path("/")
    return Machine(own and SYSTEMD.is_dir(), nfs.backend(config.services.nfs), program(), own)


def program() -> str:
    """The `kestrelpi` that runs now, else the one in the search path."""
    running = Path(sys.argv[0])
    if running.name == "kestrelpi" and running.exists():
        return str(running.absolute())
    return shutil.which("kestrelpi") or "/usr/bin/kestrelpi"


def serving(paths: Paths) -> int | None:
    """The process of the `kestrelpi serve` that runs below this root; None: none does.

    It holds a lock on its pid file for as long as it lives, so a number that a crash left there is not believed.
    """
    try:
        with (paths.run / "serve.pid").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                match = re.search(r"\d+", file.read())
                return int(match[0]) if match else None
    except FileNotFoundError:
        pass
    return None
