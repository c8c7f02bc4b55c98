"""What the initramfs says when it gives up (overlays/initramfs), with the likely cause and the fix."""

from __future__ import annotations

import re

KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"no time from",
        "the HTTP endpoint isn't reachable: kestrelpi serve doesn't run, or a firewall",
        "kestrelpi status; open services.http.port (TCP) to the nodes",
    ),
    (r"has not been built", "its image has no generation", "kestrelpi images build"),
    (
        r"has its files already",
        "something asked for this node's files in its name, or its kernel was started by hand",
        "switch it off and on; if it happens again: docs/security.md",
    ),
    (
        r"asks from .* its address is",
        "another DHCP server gave it its address",
        "switch that server off here: docs/how-to/beside-another-dhcp-server.md",
    ),
    (
        r"loop device|lacks loop|squashfs files|squashfs \S+ of",
        "the compressed root can't be mounted: the kernel lacks a module, or a file of the generation is damaged",
        "kestrelpi images build; or images.NAME.root: nfs",
    ),
    (
        r"mount.*(Connection refused|timed out|No route)",
        "the NFS server doesn't answer",
        "kestrelpi doctor (nfs-silent); open services.nfs.port (TCP) to the nodes",
    ),
    (
        r"mount.*No such file",
        "the generation that it boots was removed, or isn't exported",
        "restart it; kestrelpi reconfigure --frontend",
    ),
    (
        r"mount.*(Permission denied|not permitted|access denied)",
        "its address is in no network that the root is exported to",
        "compare network.address with the export; kestrelpi reconfigure --frontend",
    ),
    (
        r"mount.*(No such device|Invalid argument|Protocol not supported)",
        "the kernel lacks this NFS version or its modules are not in the initramfs",
        "kestrelpi images build --force-from configure; or another services.nfs.version",
    ),
    (
        r"no DHCP answer",
        "our answers don't reach its kernel: spanning tree, a full pool, a firewall",
        "kestrelpi doctor; make its switch port an edge port (portfast)",
    ),
    (
        r"no wired network",
        "no driver for its network in the initramfs (a Pi 5 with Debian's own kernel), or no cable",
        "overlays/initramfs/etc/modules; bookworm and trixie kernels have no driver for a Pi 5",
    ),
    (r"overlay on", "the kernel refuses a RAM overlay on this root", "kestrelpi images build --force"),
    (
        r"runtime files|runtime archive",
        "the frontend did not give it its own files",
        "the log of kestrelpi serve says why",
    ),
    (r"cmdline\.txt", "its command line is not ours", "look at your overlays/boot/cmdline.txt.j2"),
    (r"no /sbin/init", "the image isn't whole", "kestrelpi images build --force"),
)


def explain(detail: str) -> tuple[str, str]:
    """The likely cause and the fix of a failure."""
    for pattern, cause, fix in KNOWN:
        if re.search(pattern, detail):
            return cause, fix
    return (
        "see its console: `kestrelpi: FAILED while …`",
        "kestrelpi.debug in the group's cmdline opens a shell there",
    )
