"""What a Pi's boot loader is and is set to, as a booted node tells it, and what would make it as wanted. Pure.

A 4, 400, CM4, 5 or CM5 has its boot loader in an EEPROM. Its firmware hands the operating system, in the device tree
and in memory, when it was built and written and a read-only copy of its settings (Raspberry Pi documentation, "Device
Trees, overlays, and parameters": bootloader properties, NVMEM nodes). A Pi 3 has neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kestrelpi.nodes.boots import Boot, Kind
from kestrelpi.nodes.models import board

READ = r"""
tree=${ROOT:-}/proc/device-tree
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }
say() { printf '%s %s\n' "$1" "$2"; }
say boot "$(cat "${ROOT:-}/proc/sys/kernel/random/boot_id")"
[ ! -e "$tree/model" ] || say model "$(hex "$tree/model")"
for name in version build-timestamp update-timestamp; do
    [ ! -e "$tree/chosen/bootloader/$name" ] || say "$name" "$(hex "$tree/chosen/bootloader/$name")"
done
if [ -e "$tree/aliases/blconfig" ]; then
    [ -n "${ROOT:-}" ] || modprobe -q nvmem-rmem
    node=$(readlink -f "$tree$(tr -d '\0' < "$tree/aliases/blconfig")")
    for device in "${ROOT:-}"/sys/bus/nvmem/devices/*; do
        [ "$(readlink -f "$device/of_node")" != "$node" ] || say settings "$(hex "$device/nvmem")"
    done
fi
for program in rpi-eeprom-config rpi-eeprom-update flashrom; do
    ! command -v "$program" > /dev/null || say program "$program"
done
"""
"""For `sh -s` on a node. Debian's arm64 kernels have nvmem-rmem as a module."""
NEEDED = ("rpi-eeprom-config", "rpi-eeprom-update", "flashrom")
"""Programs that write the EEPROM of a running Pi; Debian has only the last one."""
OLD = datetime(2022, 10, 1, tzinfo=UTC).timestamp()
"""Before that: blocks of 1,024 bytes, and no file over 67 MB."""
SECTION = re.compile(r"\[(.*)\]")


@dataclass(frozen=True)
class Eeprom:
    """What one node told."""

    boot: str
    """The kernel's id of this boot."""
    model: str = ""
    version: str = ""
    built: float = 0.0
    """Unix time; 0: not told, as a Pi 3, which has no EEPROM, doesn't."""
    written: float = 0.0
    """When the EEPROM was last written; 0: not told."""
    text: str = ""
    """Its bootconf.txt; empty: not told."""
    programs: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, str]:
        """What is in force whatever the board: before the first section, or in `[all]`."""
        return {key: value for section, key, value in _lines(self.text) if section == "all"}


@dataclass(frozen=True)
class Setting:
    """One setting that is not as wanted; `now` is empty where it isn't set, and the boot loader's default holds."""

    key: str
    now: str
    wanted: str


@dataclass(frozen=True)
class Standing:
    """How one node stands to what is wanted."""

    node: str
    told: Eeprom | None = None
    differs: tuple[Setting, ...] = ()
    problem: str = ""
    """Why nothing can be said, or done, about it; empty: it is as wanted, or can be made so."""
    signs: tuple[str, ...] = field(default=())
    """What its boots showed of an old boot loader, without asking it."""

    @property
    def word(self) -> str:
        """For a table."""
        if self.problem:
            return self.problem
        return "; ".join(f"{one.key} {one.now or 'unset'} → {one.wanted}" for one in self.differs) or "as wanted"


def parse(output: str) -> Eeprom:
    """What READ printed. Raises ValueError when it isn't that."""
    found: dict[str, str] = {}
    programs = []
    for line in output.splitlines():
        key, _, value = line.partition(" ")
        if key == "program":
            programs.append(value)
        else:
            found[key] = value
    if not found.get("boot"):
        raise ValueError("no boot id")
    return Eeprom(
        found["boot"],
        board(_text(found.get("model", ""))),
        _text(found.get("version", "")),
        _number(found.get("build-timestamp", "")),
        _number(found.get("update-timestamp", "")),
        _text(found.get("settings", "")),
        tuple(programs),
    )


def _text(raw: str) -> str:
    """A string of the device tree, or the settings: padded with zeros, or with what an erased flash has."""
    return bytes.fromhex(raw).rstrip(b"\0\xff").decode("utf-8", "replace")


def _number(raw: str) -> float:
    """A cell of the device tree: 32 bits, big-endian."""
    return float(int(raw, 16)) if len(raw) == 8 else 0.0


def _lines(text: str) -> list[tuple[str, str, str]]:
    """Section, key, value of each setting; what stands before the first section is in `all`."""
    section, found = "all", []
    for line in text.splitlines():
        line = line.strip()
        if match := SECTION.fullmatch(line):
            section = match[1].strip().lower()
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.append((section, key.strip(), value.strip()))
    return found


def stand(node: str, told: Eeprom, wanted: Mapping[str, str]) -> Standing:
    """How a node that told what it has stands to `wanted`."""
    if not told.built:
        what = f"a {told.model} has no EEPROM" if told.model.startswith(("3", "Zero")) else "it tells of no boot loader"
        return Standing(node, told, problem=what)
    if wanted and not told.text:
        return Standing(node, told, problem="its settings can't be seen: the boot loader or the kernel is too old")
    for section, key, _ in _lines(told.text):
        if key in wanted and section != "all":
            return Standing(node, told, problem=f"{key} stands in a section of its own, [{section}]: set it by hand")
    now = told.settings
    differs = [Setting(key, now.get(key, ""), value) for key, value in wanted.items() if not same(now.get(key), value)]
    return Standing(node, told, tuple(differs))


def same(now: str | None, wanted: str) -> bool:
    """Whether two values mean the same: numbers may be written in hex or not."""
    if now is None:
        return False
    try:
        return int(now, 0) == int(wanted, 0)
    except ValueError:
        return now == wanted


def changed(text: str, differs: Sequence[Setting]) -> str:
    """bootconf.txt with the settings as wanted: replaced where they stand, else added at the end in `[all]`."""
    left = {one.key: one.wanted for one in differs}
    lines, section = [], "all"
    for line in text.splitlines():
        if match := SECTION.fullmatch(line.strip()):
            section = match[1].strip().lower()
        key = line.partition("=")[0].strip()
        if section == "all" and key in left and "=" in line:
            line = f"{key}={left.pop(key)}"
        lines.append(line)
    if left and section != "all":
        lines.append("[all]")
    return "\n".join([*lines, *(f"{key}={value}" for key, value in left.items())]) + "\n"


def signs(boots: Sequence[Boot]) -> tuple[str, ...]:
    """What the last boots showed of an old boot loader: it needn't be booted to be known as old."""
    return tuple(dict.fromkeys(detail for boot in boots for detail in boot.of(Kind.OLD_EEPROM)))
