"""Files that modules need and Debian doesn't have: which, from where, where they lie, and whether they are right.

Each lies in the cache under its SHA-256. Nothing uses one without `verify`: a file that somebody changed, or that a
disk has spoilt, is refused.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from kestrelpi.config import Config
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.images.module_file import SHA256, Fetch
from kestrelpi.images.modules import Enabled, Module, of_image
from kestrelpi.images.options import Values
from kestrelpi.paths import Paths
from kestrelpi.templates import render_text

DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
CHUNK = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """One file, as the options of its module want it."""

    module: str
    name: str
    version: str
    url: str
    file: str
    sha256: str
    """Empty: nobody has said what it is, so the file can't be used."""
    size: int
    """Bytes; 0: unknown."""
    mode: int
    package: bool
    path: Path
    """Where it lies once it is fetched."""
    lookup: str
    """What to do while `sha256` is empty."""

    @property
    def present(self) -> bool:
        return bool(self.sha256) and self.path.is_file()

    @property
    def title(self) -> str:
        """For people: `k3s-arm64 v1.36.4+k3s1`."""
        return f"{self.name} {self.version}".rstrip()

    def required_sha256(self) -> str:
        """The SHA-256; raises ConfigError while nobody has said what it is."""
        if not self.sha256:
            raise ConfigError(
                f"nobody has said what the SHA-256 of {self.title} is, so it can't be fetched or used", fix=self.lookup
            )
        return self.sha256


def own_arch() -> str:
    """The architecture of this machine, as Debian calls it."""
    machine = platform.machine()
    return DEBIAN_ARCH.get(machine, machine)


def folder(paths: Paths, config: Config) -> Path:
    """Where fetched files lie, for all images."""
    return (config.build.cache or paths.cache) / "fetched"


def of_module(module: Module, options: Values, cache: Path, arch: str = "") -> dict[str, Fetched]:
    """What the module fetches with these options, by name; raises ConfigError for a URL or a hash that is none."""
    arch = arch or own_arch()
    wanted = {name: one for name, one in module.manifest.fetch.items() if one.arch in ("", arch)}
    return {name: _fetched(module.name, name, one, options, cache, arch) for name, one in wanted.items()}


def of_modules(enabled: Enabled, cache: Path, arch: str = "") -> dict[str, Fetched]:
    """What the modules of one image fetch, by name (no two have the same)."""
    found: dict[str, Fetched] = {}
    for module in enabled:
        found |= of_module(module, enabled.values(module.name), cache, arch)
    return found


def of_images(paths: Paths, config: Config) -> list[Fetched]:
    """What all images need, each file once."""
    found = [
        one
        for image in config.images
        for one in of_modules(of_image(paths, config, image), folder(paths, config)).values()
    ]
    return list({(one.name, one.version, one.path): one for one in found}.values())


def _fetched(module: str, name: str, fetch: Fetch, options: Values, cache: Path, arch: str) -> Fetched:
    known: dict[str, object] = {"options": options, "arch": arch}
    known["version"] = version = render_text(fetch.version, known)
    url = render_text(fetch.url, known)
    where = f"module {module}, fetch {name}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{url!r} can't be fetched: only http:// and https:// can", where=where)
    file = render_text(fetch.file, known) or unquote(PurePosixPath(urlsplit(url).path).name)
    if not file or "/" in file or file.startswith("."):
        raise ConfigError(f"{file!r} is no name for a file", where=where)
    release = fetch.releases.get(version)
    given = render_text(fetch.sha256, known).strip().lower()
    option = f"images.<image>.options.{module}.{fetch.sha256_option}" if fetch.sha256_option else ""
    if given and not SHA256.fullmatch(given):
        raise ConfigError(f"{given!r} is no SHA-256: that is 64 hexadecimal digits", where=option or where)
    sha256 = given or (release.sha256 if release else "")
    size = release.size if release and release.sha256 == sha256 else 0
    places = [f"look it up at {render_text(fetch.sums, known)}"] if fetch.sums else []
    places += [f"set {option} in kestrelpi.yaml"] if option else []
    path = cache / (sha256 or "unknown") / file
    return Fetched(
        module, name, version, url, file, sha256, size, int(fetch.mode, 8), fetch.package, path, ", and ".join(places)
    )


def verify(one: Fetched) -> None:
    """Raise UserError unless the file is there and has its SHA-256."""
    wanted = one.required_sha256()
    if not one.path.is_file():
        raise UserError(
            f"{one.title} has not been fetched", where=str(one.path), fix=f"run: kestrelpi modules fetch {one.module}"
        )
    found = hash_file(one.path)
    if found != wanted:
        raise mismatch(one, found, str(one.path), f"kestrelpi modules fetch {one.module}")


def verify_all(wanted: Iterable[Fetched]) -> None:
    """`verify` each."""
    for one in wanted:
        verify(one)


def mismatch(one: Fetched, found: str, where: str, command: str) -> UserError:
    """The error that names both hashes."""
    return UserError(
        f"{one.title} is not the file that it should be: it is refused",
        where=where,
        detail=f"SHA-256 wanted {one.sha256}\nSHA-256 found  {found}",
        fix=f"if you trust the wanted one, fetch it again: {command}",
    )


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in pieces: it may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def choose(known: Mapping[str, Fetched], names: Iterable[str], where: str) -> list[Fetched]:
    """Those called `names`; raises UserError, with `where` asks for it, for a name that there isn't."""
    found = []
    for name in names:
        if name not in known:
            fix = f"there is: {', '.join(sorted(known)) or 'nothing'}"
            raise UserError(f"no enabled module fetches {name!r}", where=where, fix=fix)
        found.append(known[name])
    return found
