"""NFS for the nodes' roots: the kernel's nfsd where there is one, else nfs-ganesha, run and watched by us.

One read-only export has all images: a new generation needs no new export, and a node mounts
`<images>/<image>/generations/<id>/root` below it. A path over NFSv4 is the path on the frontend, as with the kernel's
nfsd.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.config import Config, Nfs
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images.modules import of_frontend
from kestrelpi.paths import Paths
from kestrelpi.pdeathsig import dies_with_us
from kestrelpi.run import Process, start, stop
from kestrelpi.services.supervise import Child, Supervised
from kestrelpi.users import shared


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


@dataclass(frozen=True)
class Export:
    """A folder that nodes mount; its path over NFS is its path here."""

    path: Path
    writable: bool = False
    """Then root on a node is nobody here."""


def exports(paths: Paths, config: Config) -> tuple[Export, ...]:
    """The images; with the module `users` also what the nodes know of the users, and the homes."""
    found = [Export(paths.images)]
    if "users" in of_frontend(paths, config):
        found.append(Export(shared.folder(paths)))
        if not config.users.server:
            found.append(Export(paths.root / str(config.users.homes).lstrip("/"), writable=True))
    return tuple(found)


def exports_file(paths: Paths, config: Config) -> str:
    """exports(5) for the kernel's nfsd, a line an export."""
    read_only = "ro,no_root_squash,no_subtree_check,async,crossmnt,insecure_locks"
    writable = "rw,root_squash,no_subtree_check,sync"
    network = config.network.address.network
    return "".join(
        f"{one.path} {network}({writable if one.writable else read_only})\n" for one in exports(paths, config)
    )


def ganesha_config(paths: Paths, config: Config) -> str:
    """ganesha.conf: numeric owners (else every owner is nobody and set-uid programs fail), no portmapper."""
    nfs = config.services.nfs
    version3 = nfs.version == "3"
    protocols = "3, 4" if version3 else "4"
    blocks = "".join(
        export_block(number, one, config, protocols) for number, one in enumerate(exports(paths, config), 1)
    )
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
{blocks}LOG {{ Default_Log_Level = WARN; }}
"""


def export_block(number: int, export: Export, config: Config, protocols: str) -> str:
    """One EXPORT of ganesha.conf."""
    access, squash = ("RW", "Root_Squash") if export.writable else ("RO", "No_Root_Squash")
    return f"""\
EXPORT {{
    Export_Id = {number};
    Path = "{export.path}";
    Pseudo = "{export.path}";
    Access_Type = NONE;
    Squash = {squash};
    Protocols = {protocols};
    Transports = TCP;
    FSAL {{ Name = VFS; }}
    CLIENT {{ Clients = {config.network.address.network}, {config.listen}; Access_Type = {access}; }}
}}
"""


class Ganesha:
    """nfs-ganesha as our child: watched, started again when it ends, stopped with us."""

    def __init__(self, paths: Paths, config: Config) -> None:
        self.paths = paths
        self.config = config
        self._portmapper: Process | None = None
        self._server: Supervised | None = None

    @property
    def child(self) -> Child:
        """What is run."""
        files = ["-L", str(self.paths.log / "ganesha.log"), "-p", str(self.paths.run / "ganesha.pid")]
        argv = ("ganesha.nfsd", "-F", "-f", str(self._configuration), *files)
        return Child(
            "nfs-ganesha",
            argv,
            self.paths.log / "ganesha.log",
            folders=(self.paths.run / "ganesha",),
            tcp=(str(self.config.listen), self.config.services.nfs.port),
        )

    @property
    def _configuration(self) -> Path:
        return self.paths.run / "ganesha.conf"

    async def start(self) -> None:
        """Write its configuration and start it; raises UserError when it isn't installed."""
        write_whole(self._configuration, ganesha_config(self.paths, self.config))
        for one in exports(self.paths, self.config):
            one.path.mkdir(parents=True, exist_ok=True)
        if self.config.services.nfs.version == "3" and not portmapper_answers():
            # ganesha serves version 3 only where it can register; the nodes don't ask the portmapper.
            self._portmapper = start(dies_with_us(["rpcbind", "-f", "-h", str(self.config.listen)], "TERM"))
            wait_for_portmapper()
        self._server = Supervised(self.child)
        await self._server.start()

    async def take_anew(self, config: Config) -> None:
        """Serve what `config` says now; mounts live on over a new start, as version 4 promises."""
        self.config = config
        new = ganesha_config(self.paths, config)
        if self._server and self._configuration.read_text(encoding="utf-8") != new:
            await self.stop()
            await self.start()

    async def stop(self) -> None:
        """End it; nothing of it stays."""
        if self._server:
            await self._server.stop()
            self._server = None
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
