"""What a Pi says of itself: board revisions, MAC prefixes, and option 97 of its DHCP messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

OUIS = ("b8:27:eb", "dc:a6:32", "e4:5f:01", "28:cd:c1", "d8:3a:dd", "2c:cf:67", "88:a2:9e")
"""MAC prefixes of Raspberry Pi's makers (IEEE registry); services.dhcp.extra_ouis adds to them."""

TYPES = {
    0x04: "2B",
    0x08: "3B",
    0x0A: "CM3",
    0x0D: "3B+",
    0x0E: "3A+",
    0x10: "CM3+",
    0x11: "4B",
    0x12: "Zero 2 W",
    0x13: "400",
    0x14: "CM4",
    0x15: "CM4S",
    0x17: "5",
    0x18: "CM5",
    0x19: "500",
    0x1A: "CM5 Lite",
}
"""Bits 4-11 of a board revision (Raspberry Pi documentation, "Revision codes"): the models that can run arm64."""

FOURCCS = frozenset((b"4iPR", b"RPi4", b"5iPR", b"RPi5"))
"""How option 97 of an EEPROM boot loader begins: both byte orders occur on the wire."""


@dataclass(frozen=True)
class Model:
    """One board, as its revision code tells it."""

    name: str
    memory_mb: int
    cpus: int = 4
    """Every Pi that can run arm64 has four cores."""


@dataclass(frozen=True)
class Identity:
    """What one message said of a Pi; an empty or zero field was not said."""

    serial: str = ""
    """The low 32 bits of the serial number: 8 hex digits in lower case, the name of the Pi's TFTP folder."""
    model: str = ""
    revision: int = 0
    memory_mb: int = 0
    cpus: int = 0


def revision(code: int) -> Model | None:
    """The board with this revision code; None for the codes before the Pi 2 and for unknown types.

    The code's bits are NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR (Raspberry Pi documentation, "Revision codes").
    """
    if not code >> 23 & 1:
        return None
    name = TYPES.get(code >> 4 & 0xFF)
    return Model(name, 256 << (code >> 20 & 7)) if name else None


def identify(option97: bytes, mac: str, extra_ouis: Iterable[str] = ()) -> Identity:
    """What the DHCP client GUID (option 97) tells; never raises, whatever the bytes are.

    Three forms: FourCC, revision, end of the MAC, serial (EEPROM boot loaders since March 2020); the serial four times
    (3B+ ROM, bootcode.bin, older EEPROMs); sixteen 0x44 (3B ROM: constant, no serial).
    """
    if len(option97) != 17 or option97[0] != 0:
        return Identity()
    guid = option97[1:]
    if guid[:4] in FOURCCS:
        code = int.from_bytes(guid[4:8], "little")
        board = revision(code)
        serial = f"{int.from_bytes(guid[12:], 'little'):08x}"
        if board is None:
            return Identity(serial=serial, revision=code)
        return Identity(serial, board.name, code, board.memory_mb, board.cpus)
    if not is_pi(mac, extra_ouis=extra_ouis):
        return Identity()
    if guid == b"\x44" * 16:
        return Identity(model="3B", memory_mb=1024, cpus=4)
    if guid == guid[:4] * 4 and any(guid):
        return Identity(serial=f"{int.from_bytes(guid[:4], 'little'):08x}")
    return Identity()


def is_pi(mac: str, option97: bytes = b"", extra_ouis: Iterable[str] = ()) -> bool:
    """Whether a DHCP client is a Raspberry Pi: by MAC prefix or by option 97's FourCC.

    Never by options 60 and 93: a Pi's are those of an x86 BIOS PXE client.
    """
    if mac[:8] in OUIS or option97[1:5] in FOURCCS:
        return True
    return any(mac.startswith(oui.lower().replace("-", ":")) for oui in extra_ouis)


def board(text: str) -> str:
    """The model's name from the device tree's `model` ("Raspberry Pi 4 Model B Rev 1.4"); empty: not a Pi we know."""
    found = re.match(r"Raspberry Pi (Compute Module )?(Zero 2 W|\d+S?)(?: Model ([AB]))?( Plus)?", text)
    if not found:
        return ""
    module, number, letter, plus = found.groups()
    if module:
        return f"CM{number}"
    name = number + (letter or "") + ("+" if plus else "")
    return {"5B": "5"}.get(name, name)
