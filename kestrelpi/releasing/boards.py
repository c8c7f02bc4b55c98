"""What each Raspberry Pi needs of a generation to boot from the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kestrelpi.lab.profiles import PROFILES, Profile


@dataclass(frozen=True)
class Board:
    """One model."""

    model: str
    """As the registry and groups.NAME.models call it."""
    profile: Profile
    """How its boot loader asks for files."""
    drivers: tuple[str, ...]
    """Kernel modules that its Ethernet needs, in the initramfs or built in."""
    ethernet: str = ""
    """`compatible` of its Ethernet in the device tree; empty: it is on USB and not in the tree."""
    remedy: str = "see what the image's lists and overlays leave out: kestrelpi images build --plan"
    """What gives an image all that."""


PI3 = ("smsc95xx", "dwc2")
PI3_PLUS = ("lan78xx", "dwc2")
PI4 = ("genet", "mdio-bcm-unimac", "broadcom")
PI5 = ("macb", "rp1_pci", "clk-rp1", "pinctrl-rp1", "irq-bcm2712-mip", "broadcom")
"""Debian has them since Linux 6.17: in trixie's backports."""
GENET, GEM = "brcm,bcm2711-genet-v5", "raspberrypi,rp1-gem"
BACKPORTS = "give the image suite: trixie and kernel: {suite: trixie-backports}"


BOARDS: Mapping[str, Board] = {
    board.model: board
    for board in (
        Board("3B", PROFILES["3B"], PI3),
        Board("3B+", PROFILES["3B+"], PI3_PLUS),
        Board("4B", PROFILES["4"], PI4, GENET),
        Board("400", PROFILES["400"], PI4, GENET),
        Board("CM4", PROFILES["CM4"], PI4, GENET),
        Board("5", PROFILES["5"], PI5, GEM, BACKPORTS),
        Board("500", PROFILES["500"], PI5, GEM, BACKPORTS),
        Board("CM5", PROFILES["CM5"], PI5, GEM, BACKPORTS),
    )
}
"""The models that boot from the network with arm64. Of others (2B, CM3, …) nothing is known for sure."""
