"""What each Raspberry Pi model does when it boots from the network, as data.

Sources are named by the letters of their confidence: D a vendor document, L a published log or capture, I a statement
in a public issue, G a guess by analogy that no source confirms. Nothing here is tuned to a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

VENDOR_CLASS = b"PXEClient:Arch:00000:UNDI:002001"
"""Option 60 of every model, the Pi 5 included (D, L)."""
BOOT_STRING = b"Raspberry Pi Boot"
"""What option 43 must hold."""
PI3_XID = 0x26F30339
"""Every Pi 3 uses this transaction id in every boot (D)."""
_PXE = (43, 60, 67, 128, 129, 130, 131, 132, 133, 134, 135, 66)


class Guid(Enum):
    """What option 97 holds after its first zero byte."""

    CONSTANT = "sixteen times 0x44: says nothing about the Pi (3B ROM)"
    SERIAL = "the serial, little-endian, four times (3B+, bootcode.bin, Pi 4 before 2020-03)"
    BOARD = "FourCC, board revision, last four bytes of the MAC, serial (Pi 4 since 2020-03, Pi 5)"


@dataclass(frozen=True)
class DhcpTraits:
    """How a boot stage speaks DHCP. Times in seconds."""

    requested: tuple[int, ...]
    """Option 55."""
    guid: Guid
    fourcc: bytes = b""
    xid: int | None = None
    """None: another one for each boot."""
    ttl: int = 64
    ip_id: int = 1
    udp_checksum: bool = True
    sends_request: bool = True
    request_vendor_class: bool = True
    """Whether the REQUEST has option 60; that of 2020-01 had not (I)."""
    boot_string: bytes = BOOT_STRING
    accepts_tftp_name: bool = True
    """An OFFER without the string is accepted for an option 66 that is an ASCII dotted quad (L)."""
    needs_discovery_control: bool = False
    """Option 43 counts only with its sub-option 6 = 3 (L, Pi 5)."""
    on_link: bool = False
    """Knows no mask and no router: the server must be on its own network (D, 3B ROM)."""
    interval: float = 4.0
    """DHCP_REQ_TIMEOUT (D)."""
    timeout: float = 45.0
    """DHCP_TIMEOUT: the whole sequence (D)."""


@dataclass(frozen=True)
class TftpTraits:
    """How a boot stage speaks TFTP. Times in seconds."""

    blksize: int | None
    """None: the option isn't sent, blocks have 512 bytes."""
    tsize: bool = True
    first_port: int = 40084
    """Source port of the first request; each further request takes the next one (L)."""
    needs_oack: bool = False
    """A config.txt that came without an option acknowledgement is ignored (I, Pi 4 and CM4)."""
    rolls_over: bool = False
    """Block numbers go on at 0 after 65535; only since 2025-09-23 (D). Others cut the file off there."""
    reacks: bool = True
    """A block that came twice is acknowledged twice (D, since 2021-02-16)."""
    hangs_on_duplicates: bool = False
    """Real ones hang when a block comes twice (I); here it becomes a warning of the report."""
    retry: float = 2.0
    """An unanswered request is repeated after this (L)."""
    file_timeout: float = 30.0
    """TFTP_FILE_TIMEOUT (D)."""


@dataclass(frozen=True)
class Timers:
    """Seconds before the first packet and between tries."""

    power_on: float
    """From power to the first DISCOVER: SD card wait or link-up."""
    again: float | None
    """Pause before the next try after a failed boot; None: dead until the power is cut (D, Pi 3)."""


@dataclass(frozen=True)
class Profile:
    """One model with one firmware."""

    name: str
    """What `kestrelpi lab up --model` takes."""
    model: str
    """The device tree's `model`."""
    family: int
    """3, 4 or 5: which sequence of files it asks for."""
    revision: int
    """The board's revision code."""
    oui: str
    dtb: str
    upstream_dtb: str
    filters: frozenset[str]
    """Section names of config.txt that hold for it, besides [all]."""
    timers: Timers
    dhcp: DhcpTraits
    """First stage: ROM or EEPROM."""
    tftp: TftpTraits
    second_tftp: TftpTraits
    """bootcode.bin and start.elf, or start4.elf."""
    second_dhcp: DhcpTraits | None = None
    """bootcode.bin asks a second time."""
    kernels: tuple[str, ...] = ("kernel8.img",)
    """Default names, best first."""
    armstub: str = "armstub8.bin"
    starts_64bit: bool = True
    """What arm_64bit is when config.txt doesn't say (D)."""

    @property
    def serial_in_mac(self) -> bool:
        """The MAC of a Pi 3 is made of its OUI and the last three bytes of its serial (D)."""
        return self.family == 3


ROM_3B = DhcpTraits(
    requested=_PXE,
    guid=Guid.CONSTANT,
    xid=PI3_XID,
    ttl=128,
    ip_id=0,
    udp_checksum=False,
    sends_request=False,
    boot_string=BOOT_STRING + b"   ",
    accepts_tftp_name=False,
    on_link=True,
    interval=5.0,
    timeout=25.0,
)
"""Five DISCOVERs, five seconds apart (D). Three spaces: its bug (D)."""
ROM_3B_PLUS = replace(ROM_3B, guid=Guid.SERIAL, boot_string=BOOT_STRING, on_link=False)
BOOTCODE = replace(
    ROM_3B, requested=(*_PXE, 1, 3), guid=Guid.SERIAL, ttl=64, ip_id=1, udp_checksum=True, on_link=False,
    boot_string=BOOT_STRING,
)  # fmt: skip
"""bootcode.bin (I); its IP header and its timers are those of the ROM by analogy (G)."""
EEPROM_4 = DhcpTraits(
    requested=(1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135), guid=Guid.BOARD, fourcc=b"4iPR"
)
EEPROM_4_OLD = replace(EEPROM_4, guid=Guid.SERIAL, fourcc=b"", request_vendor_class=False)
EEPROM_5 = replace(EEPROM_4, fourcc=b"5iPR", needs_discovery_control=True)

ROM_TFTP = TftpTraits(blksize=None, tsize=False, first_port=49152)
BOOTCODE_TFTP = TftpTraits(blksize=None)
EEPROM_TFTP = TftpTraits(blksize=1468, needs_oack=True, rolls_over=True)
OLD_EEPROM_TFTP = TftpTraits(blksize=1024, needs_oack=True, reacks=False)
EEPROM_5_TFTP = TftpTraits(blksize=1468, rolls_over=True)
START4 = TftpTraits(blksize=1024, first_port=41084, needs_oack=True, hangs_on_duplicates=True)

_PI3 = Profile(
    name="3B",
    model="Raspberry Pi 3 Model B Rev 1.2",
    family=3,
    revision=0xA02082,
    oui="b8:27:eb",
    dtb="bcm2710-rpi-3-b.dtb",
    upstream_dtb="bcm2837-rpi-3-b.dtb",
    filters=frozenset({"pi3"}),
    timers=Timers(power_on=5.0, again=None),
    dhcp=ROM_3B,
    tftp=ROM_TFTP,
    second_dhcp=BOOTCODE,
    second_tftp=BOOTCODE_TFTP,
    starts_64bit=False,
)
_PI4 = Profile(
    name="4",
    model="Raspberry Pi 4 Model B Rev 1.4",
    family=4,
    revision=0xD03114,
    oui="dc:a6:32",
    dtb="bcm2711-rpi-4-b.dtb",
    upstream_dtb="bcm2711-rpi-4-b.dtb",
    filters=frozenset({"pi4"}),
    timers=Timers(power_on=3.0, again=5.0),
    dhcp=EEPROM_4,
    tftp=EEPROM_TFTP,
    second_tftp=START4,
    armstub="armstub8-gic.bin",  # G: the logs don't name it
)
_PI5 = Profile(
    name="5",
    model="Raspberry Pi 5 Model B Rev 1.0",
    family=5,
    revision=0xD04170,
    oui="2c:cf:67",
    dtb="bcm2712-rpi-5-b.dtb",
    upstream_dtb="bcm2712-rpi-5-b.dtb",
    filters=frozenset({"pi5"}),
    timers=Timers(power_on=3.0, again=5.0),
    dhcp=EEPROM_5,
    tftp=EEPROM_5_TFTP,
    second_tftp=EEPROM_5_TFTP,
    kernels=("kernel_2712.img", "kernel8.img"),
    armstub="armstub8-2712.bin",
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        _PI3,
        replace(
            _PI3,
            name="3B+",
            model="Raspberry Pi 3 Model B Plus Rev 1.3",
            revision=0xA020D3,
            dtb="bcm2710-rpi-3-b-plus.dtb",
            upstream_dtb="bcm2837-rpi-3-b-plus.dtb",
            filters=frozenset({"pi3", "pi3+"}),
            dhcp=ROM_3B_PLUS,
        ),
        _PI4,
        replace(_PI4, name="4-old", model="Raspberry Pi 4 Model B Rev 1.1", revision=0xC03111, dhcp=EEPROM_4_OLD,
                tftp=OLD_EEPROM_TFTP),
        replace(
            _PI4,
            name="400",
            model="Raspberry Pi 400 Rev 1.0",
            revision=0xC03130,
            oui="e4:5f:01",
            dtb="bcm2711-rpi-400.dtb",
            upstream_dtb="bcm2711-rpi-400.dtb",
            filters=frozenset({"pi4", "pi400"}),
        ),
        replace(
            _PI4,
            name="CM4",
            model="Raspberry Pi Compute Module 4 Rev 1.0",
            revision=0xC03140,
            oui="e4:5f:01",
            dtb="bcm2711-rpi-cm4.dtb",
            upstream_dtb="bcm2711-rpi-cm4-io.dtb",
            filters=frozenset({"pi4", "cm4"}),
        ),
        _PI5,
        replace(
            _PI5,
            name="500",
            model="Raspberry Pi 500 Rev 1.0",
            revision=0xD04190,
            dtb="bcm2712-rpi-500.dtb",
            upstream_dtb="bcm2712-rpi-500.dtb",
            filters=frozenset({"pi5", "pi500"}),
        ),
        replace(
            _PI5,
            name="CM5",
            model="Raspberry Pi Compute Module 5 Rev 1.0",
            revision=0xD04180,
            oui="88:a2:9e",
            dtb="bcm2712-rpi-cm5-cm5io.dtb",
            upstream_dtb="bcm2712-rpi-cm5-cm5io.dtb",
            filters=frozenset({"pi5", "cm5"}),
        ),
    )
}  # fmt: skip
