"""config.txt as the firmware reads it (the vendor's documentation of it; limits: firmware#1012 and field reports)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kestrelpi.lab.identity import PiSpec

LIMIT = 4096
"""Bytes of config.txt that count over the network."""
LINE_LIMIT = 98
"""Characters of a line that count."""
MODEL_FILTERS = frozenset(f"{kind}{number}" for kind in ("pi", "cm") for number in range(6)) | {
    "pi0w", "pi02", "pi3+", "pi400", "pi500", "cm3+", "cm4s",
}  # fmt: skip


@dataclass
class ConfigTxt:
    """What holds for one Pi."""

    values: dict[str, str] = field(default_factory=dict)
    overlays: list[str] = field(default_factory=list)
    """Names of dtoverlay= lines, each once, in order."""
    initramfs: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name, "")
        return value not in ("", "0") if value.isdigit() else default

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)


def parse(content: bytes, pi: PiSpec) -> ConfigTxt:
    """Read config.txt for `pi`; what a Pi would silently lose becomes a warning."""
    found = ConfigTxt()
    text = _readable(content, found)
    filters: dict[str, bool] = {}
    for number, whole in enumerate(text.splitlines(), 1):
        line = whole.strip()
        if line.startswith("#"):
            continue
        if len(line) > LINE_LIMIT:
            found.warnings.append(f"config.txt:{number}: only {LINE_LIMIT} characters of the line count")
            line = line[:LINE_LIMIT]
        if line.startswith("[") and line.endswith("]"):
            _section(line[1:-1].lower(), pi, filters)
        elif line and all(filters.values()):
            _setting(line, found)
    return found


def _readable(content: bytes, found: ConfigTxt) -> str:
    if len(content) > LIMIT:
        found.warnings.append(f"config.txt has {len(content)} bytes: what follows byte {LIMIT} is not read")
        content = content[:LIMIT]
    end = next((at for at, byte in enumerate(content) if byte > 126), None)
    if end is not None:
        line = content[:end].count(b"\n") + 1
        found.warnings.append(f"config.txt:{line}: a byte that isn't ASCII: nothing after it is read")
        content = content[:end]
    return content.decode("ascii")


def _section(name: str, pi: PiSpec, filters: dict[str, bool]) -> None:
    """A filter replaces another of its kind; [all] ends them all."""
    if name == "all":
        filters.clear()
    elif name == "none":
        filters["none"] = False
    elif name in MODEL_FILTERS:
        filters["model"] = name in pi.profile.filters
    elif name.startswith("0x"):
        filters["serial"] = int(name, 16) == int(pi.serial, 16) if _is_hex(name[2:]) else False
    else:
        # [tryboot], [EDID=…], [gpio4=1], [board-type=…]: no emulated Pi has that.
        filters[name.partition("=")[0]] = False


def _is_hex(text: str) -> bool:
    return bool(text) and all(letter in "0123456789abcdef" for letter in text)


def _setting(line: str, found: ConfigTxt) -> None:
    if line.split(maxsplit=1)[0] == "initramfs":
        words = line.split()
        found.initramfs = tuple(words[1].split(",")) if len(words) > 1 else ()
        return
    name, equals, value = (part.strip() for part in line.partition("="))
    if not equals:
        found.warnings.append(f"config.txt: the line {line!r} is no setting")
    elif name == "dtoverlay":
        overlay = value.partition(",")[0]
        if overlay and overlay not in found.overlays:
            found.overlays.append(overlay)
    elif name == "ramfsfile":
        found.initramfs = tuple(value.split(","))
    else:
        found.values[name] = value


def firmware_files(config: ConfigTxt, family: int) -> tuple[str, str]:
    """The names of start.elf and fixup.dat: explicit ones, or the variant that other settings ask for."""
    four = "4" if family == 4 else ""
    variant = ""
    if config.flag("start_x"):
        variant = "x"
    elif config.flag("start_debug"):
        variant = "db"
    elif config.text("gpu_mem") == "16":
        variant = "cd"
    suffix = variant if four or not variant else f"_{variant}"
    start = f"start{four}{suffix}.elf"
    fixup = f"fixup{four}{suffix}.dat"
    return config.text("start_file", start), config.text("fixup_file", fixup)


def kernel_names(config: ConfigTxt, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """The names that are tried, in order: `kernel=` first, then the defaults."""
    explicit = config.text("kernel")
    names: Mapping[str, None] = dict.fromkeys(((explicit,) if explicit else ()) + defaults)
    return tuple(names)


def initramfs_names(config: ConfigTxt, kernel: str) -> tuple[str, ...]:
    """The initramfs files; auto_initramfs finds the one that is named like a default kernel."""
    if config.initramfs:
        return config.initramfs
    if config.flag("auto_initramfs") and kernel.startswith("kernel") and kernel.endswith(".img"):
        return ("initramfs" + kernel.removeprefix("kernel").removesuffix(".img"),)
    return ()
