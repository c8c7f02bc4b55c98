"""A boot loader that reads a generation's folder instead of asking a TFTP server: would this Pi start this kernel?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi.lab.failure import BootFailure
from kestrelpi.lab.firmware import Files, Firmware, Loaded
from kestrelpi.lab.identity import PiSpec
from kestrelpi.lab.profiles import Profile, TftpTraits
from kestrelpi.lab.tftp import LAST_BLOCK, Result, Transfer


@dataclass
class Folder:
    """Answers as the TFTP server would with the files of `boot` and the `rendered` ones."""

    traits: TftpTraits
    boot: Path
    rendered: Mapping[str, bytes]

    def get(self, path: str) -> Transfer:
        """The file as this boot loader would have it: one that is too long is cut off by what counts blocks."""
        transfer = Transfer(path, acknowledged=True, blksize=self.traits.blksize or 512)
        content = self.rendered.get(path.lstrip("/"))
        file = self.boot / path.lstrip("/")
        if content is not None:
            transfer.blocks, transfer.size, transfer.result = [content], len(content), Result.GOT
        elif file.is_file():
            transfer.size = file.stat().st_size
            # Newer firmware counts on beyond block 65535, but nobody knows how old the firmware of a board is.
            whole = transfer.size < LAST_BLOCK * transfer.blksize
            transfer.result = Result.GOT if whole else Result.TRUNCATED
        else:
            transfer.result, transfer.error = Result.MISSING, "not in the generation"
        return transfer

    def probe(self, path: str) -> Transfer:
        transfer = self.get(path)
        if transfer.result is not Result.MISSING:
            transfer.result = Result.PROBED
        return transfer


@dataclass
class Reading:
    """What one model's boot loader makes of a generation."""

    loaded: Loaded
    failure: str = ""
    """Why the kernel would not start; empty: it would."""
    truncated: dict[str, int] = field(default_factory=dict)
    """Files that are too long, and the bytes that this boot loader can load."""
    got: list[str] = field(default_factory=list)
    """What it loaded, without the rendered files."""


def spec_of(profile: Profile) -> PiSpec:
    """A Pi of this model."""
    return PiSpec(1, profile.name, f"{profile.oui}:00:00:01", "00000001")


def read(profile: Profile, boot: Path, rendered: Mapping[str, bytes]) -> Reading:
    """Let the boot loader of a model load the folder `boot`, with `config.txt` and `cmdline.txt` out of `rendered`."""
    firmware = Firmware(spec_of(profile), lambda stage, text: None)
    reading = Reading(firmware.loaded)

    def keep(name: str, transfer: Transfer) -> None:
        if transfer.result is Result.TRUNCATED:
            reading.truncated[name] = LAST_BLOCK * transfer.blksize
        elif transfer.result is Result.GOT and name.lstrip("/") not in rendered:
            reading.got.append(name)

    def files(traits: TftpTraits) -> Files:
        return Files(Folder(traits, boot, rendered), "", keep)

    try:
        if profile.family == 3:
            firmware.rom_3(files(profile.tftp))
            firmware.bootcode_3(files(profile.second_tftp))
        elif profile.family == 4:
            firmware.eeprom_4(files(profile.tftp))
            firmware.second_stage(files(profile.second_tftp))
        else:
            firmware.eeprom_5(files(profile.tftp))
    except BootFailure as failure:
        reading.failure = failure.reason
    return reading
