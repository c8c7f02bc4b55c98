"""NFS for the nodes' roots: the kernel's nfsd where there is one, else nfs-ganesha, run and watched by us.

One read-only export, the folder of all images: a new generation needs no new export, and a node mounts
`<images>/<image>/generations/<id>/root` below it. Its path over
NFSv4 is its path on the frontend, as with the kernel's nfsd.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path

from kestrelpi.config import Config, Nfs
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.paths import Paths
from kestrelpi.run import Process, start, stop

log = logging.getLogger("kestrelpi")

RESTART_DELAY = 2.0
"""Seconds before a ganesha that ended is started again."""


def mount_options(nfs: Nfs) -> str:
    """The options of the nodes' mount that depend on the server (nfs(5)); for version 3 without the portmapper."""
    if nfs.version == "3":
        return f"vers=3,port={nfs.port},nolock,proto=tcp,mountproto=tcp,mountport={mountd_port(nfs)}"
    return f"vers={nfs.version},port={nfs.port}"


def mountd_port(nfs: Nfs) -> int:
    """mountd's port, fixed beside nfsd's, so that a node needs no portmapper."""
    return 20048 if nfs.port == 2049 else nfs.port + 1


def kernel_has_nfsd(proc: Path = Path("/proc"), modules: Path = Path("/lib/modules")) -> bool:
    """Whether this kernel can serve NFS: it has the file system, or a module that can be loaded."""
    if "nfsd" in (proc / "filesystems").read_text().split():
        return True
    index = modules / os.uname().release / "modules.dep"
    return index.is_file() and "/nfsd.ko" in index.read_text()


def backend(nfs: Nfs, proc: Path = Path("/proc"), modules: Path = Path("/lib/modules")) -> str:
    """`kernel`, `ganesha` or `none`."""
    if nfs.backend == "auto":
        return "kernel" if kernel_has_nfsd(proc, modules) else "ganesha"
    return nfs.backend


def exports_line(paths: Paths, config: Config) -> str:
    """The line of exports(5) for the kernel's nfsd."""
    options = "ro,no_root_squash,no_subtree_check,async,crossmnt,insecure_locks"
    return f"{paths.images} {config.network.address.network}({options})\n"


def ganesha_config(paths: Paths, config: Config) -> str:
    """ganesha.conf: numeric owners (else every owner is nobody and set-uid programs fail), no portmapper."""
    nfs = config.services.nfs
    version3 = nfs.version == "3"
    protocols = "3, 4" if version3 else "4"
    return f"""\
NFS_CORE_PARAM {{
    Protocols = {protocols};
    Bind_addr = {config.listen};
    NFS_Port = {nfs.port};
    MNT_Port = {mountd_port(nfs)};
    Enable_NLM = false;
    Enable_RQUOTA = false;
    mount_path_pseudo = true;
}}
NFSV4 {{
    Grace_Period = 5;
    Lease_Lifetime = 10;
    RecoveryBackend = fs;
    RecoveryRoot = "{paths.run}/ganesha";
    Only_Numeric_Owners = true;
    Allow_Numeric_Owners = true;
}}
EXPORT_DEFAULTS {{ SecType = sys; }}
EXPORT {{
    Export_Id = 1;
    Path = "{paths.images}";
    Pseudo = "{paths.images}";
    Access_Type = NONE;
    Squash = No_Root_Squash;
    Protocols = {protocols};
    Transports = TCP;
    FSAL {{ Name = VFS; }}
    CLIENT {{ Clients = {config.network.address.network}, {config.listen}; Access_Type = RO; }}
}}
LOG {{ Default_Log_Level = WARN; }}
"""


class Ganesha:
    """nfs-ganesha as our child: started, watched, started again when it ends, stopped with us."""

    def __init__(self, paths: Paths, config: Config) -> None:
        self.paths = paths
        self.config = config
        self._process: Process | None = None
        self._portmapper: Process | None = None
        self.restarts = 0

    @property
    def log_path(self) -> Path:
        return self.paths.log / "ganesha.log"

    def start(self) -> None:
        """Write its configuration and start it; raises UserError when it isn't installed."""
        configuration = self.paths.run / "ganesha.conf"
        write_whole(configuration, ganesha_config(self.paths, self.config))
        self.paths.images.mkdir(parents=True, exist_ok=True)
        (self.paths.run / "ganesha").mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.config.services.nfs.version == "3" and self._portmapper is None and not portmapper_answers():
            # ganesha serves version 3 only where it can register; the nodes don't ask the portmapper.
            self._portmapper = start(["setpriv", "--pdeathsig", "TERM", "rpcbind", "-f", "-h", str(self.config.listen)])
            wait_for_portmapper()
        files: list[str | Path] = ["-f", configuration, "-L", self.log_path, "-p", self.paths.run / "ganesha.pid"]
        self._process = start(["setpriv", "--pdeathsig", "TERM", "ganesha.nfsd", "-F", *files])

    async def watch(self) -> None:
        """Run until cancelled; a ganesha that ends is named in the log and started again."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(0.5)
            if self._process is None or self._process.poll() is None:
                continue
            status, lived = self._process.returncode, time.monotonic() - began
            log.error("nfs-ganesha ended with status %s after %.0f s; its log: %s", status, lived, self.log_path)
            await asyncio.sleep(RESTART_DELAY)
            self.restarts += 1
            began = time.monotonic()
            self.start()

    def stop(self) -> None:
        """End it; nothing of it stays."""
        if self._process:
            stop(self._process)
            self._process = None
        if self._portmapper:
            stop(self._portmapper)
            self._portmapper = None


def portmapper_answers() -> bool:
    """Whether a portmapper (RFC 1833) listens on this network namespace's port 111."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", 111)) == 0


def wait_for_portmapper(seconds: float = 5.0) -> None:
    """Raise UserError when it doesn't answer within `seconds`."""
    deadline = time.monotonic() + seconds
    while not portmapper_answers():
        if time.monotonic() > deadline:
            raise UserError("rpcbind does not answer on port 111", where="services.nfs.version")
        time.sleep(0.05)


def check_kernel(proc: Path = Path("/proc")) -> None:
    """Raise UserError unless the kernel's nfsd runs."""
    threads = proc / "fs/nfsd/threads"
    if not threads.exists() or threads.read_text().strip() == "0":
        raise UserError(
            "the kernel's NFS server does not run",
            where="services.nfs",
            fix="apt-get install nfs-kernel-server; systemctl start nfs-server; kestrelpi reconfigure --frontend",
        )
