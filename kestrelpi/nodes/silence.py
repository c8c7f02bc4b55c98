"""How long a Pi may be silent after each stage, and what it means when it is silent longer."""

from __future__ import annotations

from kestrelpi.nodes.boots import Boot, Kind, Stage

BUDGET = {
    Stage.OFFER: 60.0,  # an EEPROM's DHCP_TIMEOUT is 45 s, a Pi 3's ROM asks for 25 s
    Stage.REQUEST: 60.0,
    Stage.FIRMWARE: 120.0,  # 100 MB at 1 MB/s, which a Pi 5 was seen to do
    Stage.KERNEL: 150.0,
    Stage.INITRAMFS: 90.0,
    Stage.TIME: 90.0,
    Stage.ROOT: 90.0,
    Stage.OVERLAY: 180.0,
    Stage.SERVICES: 600.0,
}
"""Seconds. Not for `waiting` and `ready`, where silence is right, and `failed`, which has a finding of its own."""

MEANS = {
    Stage.OFFER: (
        "it lost power or its cable, or our offer didn't reach it and it has given up: a Pi 3 doesn't ask again",
        "switch it off and on; look at the switch port (spanning tree), and for a firewall on the frontend",
    ),
    Stage.REQUEST: (
        "it can't reach the TFTP server: a firewall on the frontend, or TFTP_IP in its EEPROM",
        "allow UDP from the nodes' network on the frontend: TFTP answers from another port for each file",
    ),
    Stage.FIRMWARE: (
        "its firmware stopped between two files, or it lost power or its cable",
        "look at its LED: 4 flashes: no start.elf, 7: no kernel; see its serial console with BOOT_UART=1",
    ),
    Stage.KERNEL: (
        "the kernel or its initramfs stopped before the network was up: no driver, no link, or no DHCP",
        "connect a screen or a serial cable; a Pi 5 has no Ethernet driver in bookworm's and trixie's kernels",
    ),
    Stage.INITRAMFS: ("it stopped in its initramfs", "its console says why: `kestrelpi: …`"),
    Stage.TIME: (
        "it can't mount its root: NFS doesn't answer, and it keeps trying",
        "kestrelpi doctor (nfs-silent); open services.nfs.port (TCP) to the nodes",
    ),
    Stage.ROOT: ("it stopped while it laid the overlay on its root", "see its console"),
    Stage.OVERLAY: (
        "systemd did not come up, or waits for something before sysinit.target",
        "see its console; kestrelpi nodes ssh NAME systemctl list-jobs",
    ),
    Stage.SERVICES: (
        "a service starts for ever, or the node was switched off",
        "kestrelpi nodes ssh NAME systemctl list-jobs",
    ),
}


def explain_silence(boot: Boot) -> tuple[str, str]:
    """The likely cause and the fix for a Pi that was last heard at `boot.current`."""
    if boot.of(Kind.BROKEN):
        return "it lost power or its cable in the middle of a file", "switch it off and on; look at cable and power"
    return MEANS[boot.current]
