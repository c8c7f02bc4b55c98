"""Scripts of a phase: which variables and files they declare, how they are rendered, how they run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi import templates
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.images.fetched import Fetched, choose
from kestrelpi.images.keys import hash_bytes, hash_path
from kestrelpi.images.options import Values, variable
from kestrelpi.images.overrides import Resolved
from kestrelpi.paths import Paths, data_dir

NAME = re.compile(r"[0-9]{2}-[A-Za-z0-9][A-Za-z0-9._+-]*")
CHROOT = ".chroot"
DECLARATION = re.compile(r"^#\s*(needs|input|fetched):\s*(.*)$", re.M)
ARCH = "arm64"


@dataclass(frozen=True)
class Settings:
    """What scripts and templates may know about the image that is built."""

    image: str
    suite: str
    config: Config
    paths: Paths
    cache: Path
    more: Mapping[str, str] = field(default_factory=dict)
    """Variables of modules: KESTRELPI_<MODULE>_<OPTION>, KESTRELPI_UID_<USER>."""
    options: Mapping[str, Values] = field(default_factory=dict)
    """Module → option → value."""
    fetched: Mapping[str, Fetched] = field(default_factory=dict)
    """What the modules fetch, by name."""

    @property
    def variables(self) -> dict[str, str]:
        """KESTRELPI_* by name, without ROOT and MODULE, which depend on the script."""
        return {
            "KESTRELPI_IMAGE": self.image,
            "KESTRELPI_SUITE": self.suite,
            "KESTRELPI_ARCH": ARCH,
            "KESTRELPI_DOMAIN": self.config.network.domain,
            "KESTRELPI_SERVER": str(self.config.listen),
            "KESTRELPI_HTTP_PORT": str(self.config.services.http.port),
            "KESTRELPI_TIMEZONE": self.config.images[self.image].timezone,
            "KESTRELPI_DATA": str(data_dir()),
            "KESTRELPI_CACHE": str(self.cache),
            **self.more,
        }

    @property
    def context(self) -> dict[str, object]:
        """What a `*.j2` file may use: KESTRELPI_*, `config`, `image` (a name), `suite`, `root`, modules' `options`."""
        own: dict[str, object] = {
            "config": self.config,
            "image": self.image,
            "suite": self.suite,
            "options": self.options,
        }
        own["root"] = "" if self.paths.root == Path("/") else str(self.paths.root)
        return {**self.variables, **own}


@dataclass(frozen=True)
class Script:
    """One script, ready to run."""

    phase: str
    name: str
    source: Resolved
    text: bytes
    """Rendered."""
    environment: Mapping[str, str]
    """The variables that it declared with `# needs:`."""
    inputs: Mapping[str, str]
    """Files that it declared with `# input:` → hash of their bytes."""
    fetched: tuple[Fetched, ...] = ()
    """Files that it declared with `# fetched:`."""

    @property
    def in_chroot(self) -> bool:
        return self.name.endswith(CHROOT)

    @property
    def fields(self) -> dict[str, str]:
        """What its result depends on."""
        return {
            "script": hash_bytes(self.text),
            **{name: value for name, value in self.environment.items() if name not in PLACES},
            **{f"input {path}": value for path, value in self.inputs.items()},
            **{f"fetched {one.name}": one.required_sha256() for one in self.fetched},
        }

    @property
    def places(self) -> dict[str, str]:
        """KESTRELPI_FETCHED_<NAME>: where the script finds what it declared with `# fetched:`."""
        base = FETCHED_IN_CHROOT if self.in_chroot else None
        return {variable("fetched", one.name): str(base / one.name if base else one.path) for one in self.fetched}


PLACES = ("KESTRELPI_ROOT", "KESTRELPI_CACHE", "KESTRELPI_DATA", "KESTRELPI_MODULE")
"""Where things lie: no part of a key, for the bytes that are read there are declared as inputs."""
ROOT_PLACE = "KESTRELPI_ROOT"
MODULE_IN_CHROOT = Path("/run/kestrelpi/module")
FETCHED_IN_CHROOT = Path("/run/kestrelpi/fetched")


def load(phase: str, resolved: Resolved, settings: Settings) -> Script:
    """Read, check and render a script; raises UserError when it can't run."""
    check_name(resolved)
    if not os.access(resolved.path, os.X_OK):
        raise UserError(
            "this script is not executable",
            where=str(resolved.path),
            fix=f"chmod +x {resolved.path}, or empty the file",
        )
    text = render(resolved, settings)
    declared = text.decode(errors="replace")
    in_chroot = resolved.name.endswith(CHROOT)
    known = settings.variables | {ROOT_PLACE: "/" if in_chroot else "@ROOT@"}
    if resolved.module:
        known["KESTRELPI_MODULE"] = str(MODULE_IN_CHROOT if in_chroot else resolved.module)
    needs = _declared(declared, "needs")
    for name in needs:
        if name not in known:
            raise UserError(
                f"the script needs {name}, which doesn't exist here",
                where=str(resolved.path),
                fix=f"it may have: {', '.join(sorted(known))}",
            )
    places = known | ({"KESTRELPI_MODULE": str(resolved.module)} if resolved.module else {})
    return Script(
        phase,
        resolved.name,
        resolved,
        text,
        {name: known[name] for name in needs},
        {word: hash_path(input_path(word, resolved, places)) for word in _declared(declared, "input")},
        tuple(choose(settings.fetched, _declared(declared, "fetched"), str(resolved.path))),
    )


def _declared(text: str, kind: str) -> list[str]:
    """The words of all `# kind:` lines."""
    return [word for found, words in DECLARATION.findall(text) if found == kind for word in words.split()]


def check_name(resolved: Resolved) -> None:
    """Raise UserError unless the file is called NN-what."""
    if not NAME.fullmatch(resolved.name):
        raise UserError(
            f"{resolved.name!r} is no name for a script",
            where=str(resolved.path),
            fix="call it NN-what, such as 50-motd",
        )


def input_path(word: str, resolved: Resolved, variables: Mapping[str, str]) -> Path:
    """Where a declared input lies: absolute, with $KESTRELPI_* in it, or relative to the module (else the script)."""
    for name, value in variables.items():
        word = word.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return (resolved.module or resolved.path.parent) / word


def render(resolved: Resolved, settings: Settings) -> bytes:
    """The bytes of a script or an overlay file; a template is rendered with settings.context."""
    if not resolved.is_template:
        return resolved.path.read_bytes()
    return templates.render(resolved.path, settings.context).encode()
