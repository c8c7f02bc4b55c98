"""packages.lock: every package of a build with its version and SHA-256, so that another machine can build the same.

The file has Debian's control format. After a stanza about the whole come two sections, for the phases bootstrap and
packages: when Debian published what was taken (the time that files of the image get), then a stanza for each archive
with the fields that installing it takes. A package that the second phase upgraded stands in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.errors import UserError
from kestrelpi.images.deb822 import Stanza, parse, text_of
from kestrelpi.paths import Paths

NAME = "packages.lock"
FIELD = "lock file"
"""The field of a step's key that says what --locked installed."""
FORMAT = "1"
HEAD = """# Written by kestrelpi images build; kestrelpi images build --locked installs exactly these packages.
# Keep it with your configuration. Don't edit it.
"""
FIELDS = (
    *("Package", "Version", "Architecture", "Source", "Essential", "Protected", "Multi-Arch", "Section", "Priority"),
    *("Installed-Size", "Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Replaces"),
    *("Archive", "Filename", "Size", "SHA256"),
)
"""What a stanza keeps of the archive's index: what apt and debootstrap decide by, and where the package is."""
PHASES = ("bootstrap", "packages")
AGAIN = "take it from your backup, or build without --locked: that makes a new one"
DEBIAN, SECURITY = "debian", "security"
"""Values of Archive: the mirror, the security archive; any other repository is named by its URI."""


@dataclass(frozen=True)
class Package:
    """One package archive."""

    fields: Stanza

    @property
    def name(self) -> str:
        return self.fields["Package"]

    @property
    def version(self) -> str:
        return self.fields["Version"]

    @property
    def architecture(self) -> str:
        return self.fields["Architecture"]

    @property
    def sha256(self) -> str:
        return self.fields["SHA256"]

    @property
    def archive(self) -> str:
        return self.fields.get("Archive", DEBIAN)

    @property
    def source(self) -> tuple[str, str]:
        """Name and version of the source package (Debian policy 5.6.1: the version only where it differs)."""
        name, _, version = self.fields.get("Source", self.name).partition(" ")
        return name, version.strip("()") or self.version

    @property
    def file(self) -> str:
        """Its name in the cache of archives, apt's own way."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def package(stanza: Stanza, archive: str) -> Package:
    """A stanza of an archive's index, with only the fields of a lock file."""
    whole = {**stanza, "Archive": archive}
    return Package({name: " ".join(whole[name].split()) for name in FIELDS if name in whole})


@dataclass(frozen=True)
class Section:
    """What one phase installs."""

    phase: str
    epoch: int
    """When Debian published the indexes: seconds since 1970 (reproducible-builds.org's SOURCE_DATE_EPOCH)."""
    packages: tuple[Package, ...]
    """By name."""

    def to_text(self) -> str:
        head = {"Phase": self.phase, "Epoch": str(self.epoch)}
        return text_of([head, *(one.fields for one in self.packages)])

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_text().encode()).hexdigest()


def section(phase: str, epoch: int, packages: Iterable[Package]) -> Section:
    """A section with its packages in order."""
    return Section(phase, epoch, tuple(sorted(packages, key=lambda one: (one.name, one.version))))


def merged(lower: Section | None, upper: Section) -> Section:
    """What two steps of one phase have installed, one over the other: the upper one has the last word."""
    if lower is None:
        return upper
    found = {one.name: one for one in (*lower.packages, *upper.packages)}
    return section(upper.phase, max(lower.epoch, upper.epoch), found.values())


@dataclass(frozen=True)
class Lock:
    """packages.lock."""

    suite: str
    wanted: tuple[str, ...]
    """What the package lists asked for."""
    sections: Mapping[str, Section]
    """By phase."""

    @property
    def packages(self) -> dict[str, Package]:
        """What is in the image, by name: the packages phase has the last word."""
        return {one.name: one for part in self.sections.values() for one in part.packages}

    def to_text(self) -> str:
        head = {"Lock": FORMAT, "Suite": self.suite, "Architecture": "arm64", "Wanted": " ".join(self.wanted)}
        return HEAD + "\n".join([text_of([head]), *(part.to_text() for part in self.sections.values())])


def write_section(part: Section, folder: Path) -> None:
    """Keep in a layer's folder what the step installed."""
    (folder / NAME).write_text(part.to_text(), encoding="utf-8")


def read_section(folder: Path) -> Section | None:
    """What the step of a layer installed; None for other steps."""
    path = folder / NAME
    if not path.is_file():
        return None
    return next(iter(sections(list(parse(path.read_text(encoding="utf-8"))), str(path)).values()))


def path_of(paths: Paths, image: str) -> Path:
    """Where the lock of an image lies: beside the image's scripts, to be kept with them."""
    return paths.etc / "images" / image / NAME


def read(path: Path) -> Lock:
    """Read a lock file; raises UserError when there is none or it isn't one."""
    if not path.is_file():
        raise UserError("there is no lock file", where=str(path), fix="kestrelpi images build writes it")
    return from_text(path.read_text(encoding="utf-8"), str(path))


def from_text(text: str, where: str) -> Lock:
    """Parse a lock file; `where`: its name for errors."""
    head, *rest = list(parse(text)) or [{}]
    if head.get("Lock") != FORMAT or "Suite" not in head:
        raise UserError("this is no lock file of this kestrelpi", where=where, fix="kestrelpi images build writes one")
    found = sections(rest, where)
    if set(found) != set(PHASES):
        raise UserError(f"the lock file must have the sections {' and '.join(PHASES)}", where=where, fix=AGAIN)
    return Lock(head["Suite"], tuple(head.get("Wanted", "").split()), found)


def sections(stanzas: Sequence[Stanza], where: str) -> dict[str, Section]:
    """The sections of a lock file, by phase."""
    found: dict[str, tuple[int, list[Package]]] = {}
    for stanza in stanzas:
        try:
            if "Phase" in stanza:
                found[stanza["Phase"]] = (int(stanza["Epoch"]), [])
            else:
                packages = found[list(found)[-1]][1]
                packages.append(Package({name: stanza[name] for name in FIELDS if name in stanza}))
                _ = packages[-1].file, packages[-1].sha256, stanza["Filename"]
        except (KeyError, IndexError, ValueError) as error:
            name = stanza.get("Package", "a section")
            raise UserError(
                f"the lock file is damaged at {name}: {error}",
                where=where,
                fix=AGAIN,
            ) from error
    return {phase: section(phase, epoch, packages) for phase, (epoch, packages) in found.items()}


def check(lock: Lock, suite: str, wanted: Sequence[str], where: str) -> None:
    """Raise UserError, naming every package, when a lock doesn't fit what the configuration asks for."""
    fix = "build without --locked: that makes a new lock file"
    if lock.suite != suite:
        raise UserError(f"the lock file is for {lock.suite}, the image for {suite}", where=where, fix=fix)
    more, less = set(wanted) - set(lock.wanted), set(lock.wanted) - set(wanted)
    parts = []
    if more:
        parts.append(f"the configuration asks for packages that the lock file doesn't have: {', '.join(sorted(more))}")
    if less:
        parts.append(f"the lock file has packages that are no longer asked for: {', '.join(sorted(less))}")
    if parts:
        raise UserError("; ".join(parts), where=where, fix=fix)
