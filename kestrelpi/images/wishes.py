"""The package list that `kestrelpi apt` writes for one image: a file of packages.d like any other."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from kestrelpi.paths import Paths

NAME = "90-apt"


def path_of(paths: Paths, image: str) -> Path:
    return paths.etc / "images" / image / "packages.d" / NAME


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def word(line: str) -> str:
    """What a line asks for: `htop`, `-htop`, `raspi-firmware` of a line with folders; empty for remarks."""
    return line.partition("#")[0].partition(":")[0].strip()


def asked(text: str) -> list[str]:
    """What the lines of a list ask for, in their order."""
    return [one for line in text.splitlines() if (one := word(line))]


def added(text: str, names: Collection[str]) -> str:
    """The list with these packages: a line that takes one out goes, else a line is added at the end."""
    there = asked(text)
    rest = without(text, [f"-{name}" for name in names])
    return appended(rest, [name for name in names if f"-{name}" not in there])


def removed(text: str, names: Collection[str]) -> str:
    """The list without these packages: their lines go, else a line that takes them out is added at the end."""
    return appended(without(text, list(names)), [f"-{name}" for name in names if name not in asked(text)])


def undone(text: str, before: str, after: str) -> str:
    """The list without what made `after` of `before`; lines that came since stay."""
    old, new = asked(before), asked(after)
    return appended(without(text, [one for one in new if one not in old]), [one for one in old if one not in new])


def without(text: str, words: Collection[str]) -> str:
    """The list without the lines that ask for these."""
    return "".join(line for line in text.splitlines(keepends=True) if word(line) not in words or not word(line))


def appended(text: str, words: Iterable[str]) -> str:
    """The list with lines for those of these that it doesn't have."""
    there = asked(text)
    end = "" if not text or text.endswith("\n") else "\n"
    return text + end + "".join(f"{one}\n" for one in words if one not in there)
