"""Package archives: fetched by their hashes, and small repositories of exactly those that a lock file names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from kestrelpi import run
from kestrelpi.errors import UserError
from kestrelpi.images.deb822 import find, text_of
from kestrelpi.images.lock import DEBIAN, SECURITY, Package, Section, package
from kestrelpi.images.mirror import Mirror
from kestrelpi.sandbox import Sandbox

APT_HELPER = "/usr/lib/apt/apt-helper"
ORIGIN = "kestrelpi-lock"
"""Names our repositories for apt's preferences."""
RELEASE_DATE = "Date:"


def fetch(
    packages: Sequence[Package], mirror: Mirror, archives: Path, log: Path, line: Callable[[str], None] | None = None
) -> None:
    """Have every archive in the folder `archives`, each with the right SHA-256: from there, or from the mirror's pool.

    Raises UserError that names those which can't be had any more.
    """
    partial = archives / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    missing = [one for one in packages if not is_right(archives / one.file, one)]
    if not missing:
        return
    words: list[str | Path] = []
    for one in missing:
        (partial / one.file).unlink(missing_ok=True)
        words += [uri(one, mirror), partial / one.file, f"SHA256:{one.sha256}"]
    command = [APT_HELPER, "-o", "APT::Sandbox::User=root", "download-file", *words]
    try:
        run.stream(Sandbox().argv(command), log, line=line)  # so that it ends with us, however we end
    except run.CommandFailed as error:
        raise gone([one for one in missing if not is_right(partial / one.file, one)], error) from error
    finally:
        for one in missing:
            if is_right(partial / one.file, one):
                (partial / one.file).rename(archives / one.file)


def gone(packages: Sequence[Package], error: run.CommandFailed) -> UserError:
    """The error for packages that the mirror doesn't have."""
    names = ", ".join(f"{one.name} {one.version}" for one in packages)
    return UserError(
        f"these packages can't be had any more: {names}",
        where=error.where,
        detail=error.detail,
        fix="Debian's mirrors keep only the newest versions: set build.mirror to an archive of old ones, or build "
        "without --locked",
    )


def is_right(path: Path, wanted: Package) -> bool:
    """Whether the archive is there, with the bytes that it must have."""
    if not path.is_file() or path.stat().st_size != int(wanted.fields.get("Size", path.stat().st_size)):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256


def uri(one: Package, mirror: Mirror) -> str:
    """Where a package can be had: a lock file says in which archive, the frontend where that is."""
    base = {DEBIAN: mirror.uri, SECURITY: mirror.security}.get(one.archive, one.archive)
    if not base:
        raise UserError(
            f"{one.name} {one.version} is in Debian's security archive, which the frontend's apt doesn't know",
            where="/etc/apt/sources.list",
            fix=f"add the suite {mirror.suite}-security there",
        )
    return f"{base.rstrip('/')}/{one.fields['Filename']}"


def role(base: str, mirror: Mirror) -> str:
    """How a lock file names the repository at the URI `base`: no mirror's host stands there."""
    roles = {mirror.uri.rstrip("/"): DEBIAN, mirror.security.rstrip("/"): SECURITY}
    return roles.get(base.rstrip("/"), base.rstrip("/"))


def published(releases: Iterable[Path]) -> int:
    """When the newest of some (In)Release files was made: seconds since 1970; 0 when none says so."""
    found = [0]
    for path in releases:
        for text in path.read_text(encoding="utf-8").splitlines()[:40]:
            if text.startswith(RELEASE_DATE):
                found.append(int(parsedate_to_datetime(text.removeprefix(RELEASE_DATE).strip()).timestamp()))
                break
    return max(found)


def look_up(wanted: Iterable[tuple[str, str, str]], indexes: Iterable[tuple[Path, str]]) -> dict[str, Package]:
    """The packages (name, version, architecture) by name; `indexes`: package indexes with the role of their archive.

    Raises UserError for one that no index has.
    """
    open_ones = {name: (version, architecture) for name, version, architecture in wanted}
    found: dict[str, Package] = {}
    for path, archive in indexes:
        for stanza in find(path.read_bytes(), open_ones.keys()):
            name = stanza["Package"]
            if (stanza["Version"], stanza["Architecture"]) == open_ones[name]:
                found.setdefault(name, package(stanza, archive))
    missing = sorted(open_ones.keys() - found.keys())
    if missing:
        raise UserError(f"no package index has: {', '.join(f'{one} {open_ones[one][0]}' for one in missing)}")
    return found


def flat_repository(packages: Iterable[Package], folder: Path) -> str:
    """Make a repository that apt can read of these packages' indexes; returns its line for a .sources file (deb822).

    It has no archives: apt finds those in its cache, where `fetch` has put them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = _index(packages)
    (folder / "Packages").write_bytes(index)
    (folder / "Release").write_text(_release(index, "Packages", "lock", 0))
    return f"Types: deb\nURIs: copy:{folder}\nSuites: ./\nTrusted: yes\n"


def debootstrap_mirror(section: Section, suite: str, folder: Path) -> str:
    """Make a mirror that debootstrap can read of a lock file's packages; returns its URI."""
    index = _index(section.packages)
    name = "main/binary-arm64/Packages"
    path = folder / "dists" / suite / name
    path.parent.mkdir(parents=True)
    path.write_bytes(index)
    (folder / "dists" / suite / "Release").write_text(_release(index, name, suite, section.epoch))
    return f"file://{folder}"


def _index(packages: Iterable[Package]) -> bytes:
    """An index; it ends with an empty line, as debootstrap takes a package only when a line comes after it."""
    return f"{text_of(one.fields for one in packages)}\n".encode()


def _release(index: bytes, name: str, suite: str, epoch: int) -> str:
    date = datetime.fromtimestamp(epoch, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    return (
        f"Origin: {ORIGIN}\nLabel: {ORIGIN}\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n"
        f"Components: main\nArchitectures: arm64\nSHA256:\n"
        f" {hashlib.sha256(index).hexdigest()} {len(index)} {name}\n"
    )
