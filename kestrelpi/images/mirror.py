"""Where Debian's packages come from: what the frontend's own apt uses, unless the configuration says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kestrelpi.errors import UserError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
COMPONENTS = ("main", "contrib", "non-free-firmware")
"""non-free-firmware has the Pi's boot firmware."""
SUITES = ("bookworm", "trixie")


@dataclass(frozen=True)
class Source:
    """One repository that the frontend's apt knows."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True)
class Mirror:
    """Where one image's packages come from."""

    suite: str
    uri: str
    security: str = ""
    """URI of the security archive; empty: none known."""
    keyring: Path = KEYRING
    updates: bool = True

    def sources(self) -> str:
        """The image's debian.sources (deb822, sources.list(5))."""
        suites = f"{self.suite} {self.suite}-updates" if self.updates else self.suite
        stanzas = [self._stanza(self.uri, suites)]
        if self.security:
            stanzas.append(self._stanza(self.security, f"{self.suite}-security"))
        return "\n".join(stanzas)

    def more_sources(self, suites: Iterable[str]) -> str:
        """The same mirror's other suites that single packages are taken from."""
        return "\n".join(self._stanza(self.uri, suite) for suite in suites)

    def _stanza(self, uri: str, suites: str) -> str:
        return (
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {' '.join(COMPONENTS)}\n"
            f"Signed-By: {self.keyring}\n"
        )


def preferences(suites: Iterable[str]) -> str:
    """apt_preferences(5): of these suites only what is asked for by name, what that needs, and its upgrades."""
    return "\n".join(f"Package: *\nPin: release n={suite}\nPin-Priority: 100\n" for suite in suites)


def parse_list(text: str) -> list[Source]:
    """The one-line format of sources.list(5)."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)]\s+)?(?P<rest>\S.*)", line.partition("#")[0].strip())
        if not match:
            continue
        uri, *rest = match["rest"].split()
        options = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
        if rest:
            found.append(Source(uri.rstrip("/"), (rest[0],), tuple(rest[1:]), options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The deb822 format of sources.list(5): stanzas with fields, continued by indentation."""
    found = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields = {
            key.lower(): value.strip() for key, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.M)
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
        signed = fields.get("signed-by", "")
        signed_by = signed if signed.startswith("/") else ""  # the field may hold the key itself
        found += [Source(uri.rstrip("/"), suites, components, signed_by) for uri in fields.get("uris", "").split()]
    return found


def read_sources(apt: Path = Path("/etc/apt")) -> list[Source]:
    """Every enabled repository of the apt configuration in `apt`, in apt's order."""
    found: list[Source] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += parse_list(path.read_text(encoding="utf-8"))
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text(encoding="utf-8"))
    return found


def release(os_release: Path = Path("/etc/os-release")) -> str:
    """The frontend's release by name (os-release(5)); empty when it has none."""
    fields = dict(line.partition("=")[::2] for line in os_release.read_text(encoding="utf-8").splitlines())
    return fields.get("VERSION_CODENAME", "").strip('"')


def own_suite(os_release: Path = Path("/etc/os-release")) -> str:
    """The frontend's Debian suite by name; raises UserError when it isn't one that images can have."""
    suite = release(os_release)
    if suite not in SUITES:
        raise UserError(
            f"the frontend's own release ({suite or 'unknown'}) is none that images can have",
            where=str(os_release),
            fix=f"set images.<name>.suite to one of: {', '.join(SUITES)}",
        )
    return suite


def find(suite: str, configured: str, sources: Iterable[Source]) -> Mirror:
    """The mirror for `suite`. `configured`: build.mirror, which wins. Raises UserError when none is known.

    The frontend's apt may know another suite only: a Debian mirror carries all of them at the same URI.
    """
    known = [one for one in sources if "main" in one.components]
    security = next((one.uri for one in known if any(name.endswith("-security") for name in one.suites)), "")
    plain = [one for one in known if any(name in (*SUITES, "stable", "oldstable", "testing") for name in one.suites)]
    plain.sort(key=lambda one: suite not in one.suites)
    keyring = next((Path(one.signed_by) for one in plain if one.signed_by), KEYRING)
    if configured:
        return Mirror(suite, configured.rstrip("/"), security, keyring)
    if not plain:
        raise UserError(
            "the frontend's apt knows no Debian mirror",
            where="/etc/apt/sources.list",
            fix="set build.mirror in kestrelpi.yaml",
        )
    return Mirror(suite, plain[0].uri, security, keyring)
