"""Modules: capabilities (slurm, docker, openmp, …) that bring scripts, package lists, overlay files and services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.config.locate import fail_at
from kestrelpi.errors import ConfigError
from kestrelpi.images import mirror
from kestrelpi.images.module_file import MANIFEST, Manifest, read_manifest
from kestrelpi.images.options import BadOption, Value, text_of, values, variable
from kestrelpi.images.overrides import DOCUMENTATION, Layer, resolve, resolve_one
from kestrelpi.paths import Paths, data_dir
from kestrelpi.templates import render_text

FILES = ("node", "frontend", "overlay")
"""Folders of a module whose files have names that must be its own."""


@dataclass(frozen=True)
class Module:
    """An available module; its files may lie in two folders, the user's over the built-in one."""

    name: str
    folders: tuple[Path, ...]
    """The weakest first."""
    manifest: Manifest

    @property
    def help(self) -> str:
        return self.manifest.help

    def layers(self, below: str) -> list[Layer]:
        """Where the module's files of a kind lie; `below` such as `node/configure.d` or `overlay/runtime`."""
        return [Layer(folder / below, f"module {self.name}", self.folders[0]) for folder in self.folders]

    @cached_property
    def files(self) -> frozenset[str]:
        """The names of its scripts and overlay files, as the override rule sees them."""
        names: set[str] = set()
        for kind in FILES:
            names |= {f"{kind}/{name}" for name in resolve(self.layers(kind))}
        return frozenset(name for name in names if Path(name).name != DOCUMENTATION)


@dataclass(frozen=True)
class Enabled:
    """The modules of one image, each after those that it needs, with the values of their options."""

    modules: tuple[Module, ...] = ()
    options: Mapping[str, Mapping[str, Value]] | None = None
    """Module → option → value; templates call it `options`."""

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    def __contains__(self, name: str) -> bool:
        return any(module.name == name for module in self.modules)

    def values(self, module: str) -> Mapping[str, Value]:
        """The options of one module."""
        return (self.options or {}).get(module, {})

    def variables(self) -> dict[str, str]:
        """KESTRELPI_<MODULE>_<OPTION> for scripts that declare them."""
        return {
            variable(module, option): text_of(value)
            for module, found in (self.options or {}).items()
            for option, value in found.items()
        }

    def frontend_packages(self) -> list[str]:
        """The Debian packages that the modules want on the frontend, each once; `release` is the frontend's own."""
        release = mirror.release()
        found = (
            render_text(package, {"options": self.values(module.name), "release": release})
            for module in self
            for package in module.manifest.frontend.packages
        )
        return [package for package in dict.fromkeys(found) if package]

    def ports(self, module: Module, side: str) -> list[str]:
        """The ports of a module's services on `side` (node or frontend), such as `6817/tcp`."""
        declared: tuple[str, ...] = getattr(module.manifest.ports, side)
        found = (render_text(text, {"options": self.values(module.name)}) for text in declared)
        return [port for port in found if port]


def available(paths: Paths, data: Path | None = None) -> dict[str, Module]:
    """Every module by name, built-in and in /etc/kestrelpi/modules; raises ConfigError on a bad module.yaml."""
    found: dict[str, Module] = {}
    bases = ((data or data_dir()) / "modules", paths.etc / "modules")
    names = {folder.name for base in bases if base.is_dir() for folder in base.iterdir() if folder.is_dir()}
    for name in sorted(names):
        folders = tuple(base / name for base in bases if (base / name).is_dir())
        winner = resolve_one([Layer(folder, "module") for folder in folders], MANIFEST)
        if winner is None:
            continue  # an empty module.yaml removes the module, as an empty file removes a script
        manifest, document = read_manifest(winner.path)
        if manifest.name != name:
            document.fail(
                ("name",), f"the module calls itself {manifest.name!r} but its folder is {name!r}", "use one name"
            )
        found[name] = Module(name, folders, manifest)
    return found


def of_image(paths: Paths, config: Config, image: str, data: Path | None = None) -> Enabled:
    """The modules of `image`, checked; raises ConfigError with the line of kestrelpi.yaml that says so."""
    known = available(paths, data)
    wanted = config.images[image]
    where = ("images", image)
    for index, name in enumerate(wanted.modules):
        if name not in known:
            fix = f"modules: {', '.join(known) or 'none'}; your own go to {paths.etc / 'modules'}/<name>/"
            fail_at(paths.config, (*where, "modules", str(index)), f"there is no module {name!r}", fix)
    modules = closure(known, wanted.modules)
    options = {module.name: _values(paths, module, image, wanted.options.get(module.name, {})) for module in modules}
    for name in wanted.options:
        if name not in options:
            fix = f"enable it: kestrelpi modules enable {name} --image {image}"
            fail_at(paths.config, (*where, "options", name), f"the module {name} is not enabled in {image}", fix)
    result = Enabled(tuple(modules), options)
    for what, fix in (*clashes(result), *clashes_with_ours(result, config)):
        fail_at(paths.config, (*where, "modules"), what, fix)
    return result


def _values(paths: Paths, module: Module, image: str, given: Mapping[str, str]) -> dict[str, Value]:
    try:
        return values(module.manifest.options, given)
    except BadOption as error:
        key = ("images", image, "options", module.name, error.option)
        fail_at(paths.config, key, f"module {module.name}: {error}", error.fix)


def closure(known: Mapping[str, Module], names: Iterable[str]) -> list[Module]:
    """The modules called `names` and those that they need, each after what it needs; raises ConfigError."""
    found: dict[str, Module] = {}

    def add(name: str, chain: tuple[str, ...]) -> None:
        if name in chain:
            raise ConfigError(f"modules need each other: {' → '.join((*chain, name))}")
        if name not in known:
            raise ConfigError(f"the module {chain[-1]} needs {name!r}, which there is not")
        for needed in known[name].manifest.needs:
            add(needed, (*chain, name))
        found.setdefault(name, known[name])

    for name in names:
        add(name, ())
    return list(found.values())


def clashes(found: Enabled) -> Iterator[tuple[str, str]]:
    """What two of the modules can't both have: (what, how to mend it)."""
    for one in found:
        for other in one.manifest.conflicts:
            if other in found:
                yield f"the modules {one.name} and {other} can't be in one image", "disable one of them"
    for side in ("node", "frontend"):
        owners = ((f"port {port} of the {side}", one) for one in found for port in found.ports(one, side))
        yield from _shared(owners, "set another port for one of them, or disable it")
    files = ((f"the file {name}", module) for module in found for name in sorted(module.files))
    yield from _shared(files, "disable one of them")
    fetched = ((f"the fetched file {name}", module) for module in found for name in module.manifest.fetch)
    yield from _shared(fetched, "disable one of them")


def clashes_with_ours(found: Enabled, config: Config) -> Iterator[tuple[str, str]]:
    """Ports of the frontend that a module wants and `kestrelpi serve` listens on: (what, how to mend it)."""
    services = config.services
    ours = {f"{services.tftp.port}/udp": "services.tftp", f"{services.http.port}/tcp": "services.http"}
    if services.dhcp.listens:
        ours[f"{services.dhcp.port}/udp"] = "services.dhcp"
    if services.dns.enabled:
        ours |= {f"{services.dns.port}/{kind}": "services.dns" for kind in ("tcp", "udp")}
    if services.nfs.backend != "none":
        ours[f"{services.nfs.port}/tcp"] = "services.nfs"
    for module in found:
        for port in found.ports(module, "frontend"):
            if port in ours:
                what = f"the module {module.name} and {ours[port]} both want port {port} of the frontend"
                yield what, f"set another port for one of them: an option of the module, or {ours[port]}.port"


def _shared(wanted: Iterable[tuple[str, Module]], fix: str) -> Iterator[tuple[str, str]]:
    owners: dict[str, str] = {}
    for what, module in wanted:
        if what in owners:
            yield f"the modules {owners[what]} and {module.name} both want {what}", fix
        owners[what] = module.name


def of_frontend(paths: Paths, config: Config, data: Path | None = None) -> Enabled:
    """The modules of all images, each once: what the frontend must do. Raises ConfigError where two images set other
    options for a module with services or things to keep on the frontend, as there is one of each."""
    modules: dict[str, Module] = {}
    options: dict[str, Mapping[str, Value]] = {}
    owner: dict[str, str] = {}
    for image in config.images:
        found = of_image(paths, config, image, data)
        for module in found:
            given = found.values(module.name)
            shared = module.manifest.frontend.services or module.manifest.kept
            if shared and options.get(module.name, given) != given:
                key = ("images", image, "options", module.name)
                what = f"the module {module.name} has other options here than in the image {owner[module.name]}"
                fail_at(paths.config, key, what, "its part on the frontend is there once: give both the same options")
            modules.setdefault(module.name, module)
            options.setdefault(module.name, given)
            owner.setdefault(module.name, image)
    result = Enabled(tuple(modules.values()), options)
    for what, fix in clashes(result):
        if "frontend" in what:
            fail_at(paths.config, ("images",), what, fix)
    return result


def module_uids(modules: Sequence[Module] | Enabled) -> dict[str, int]:
    """The uid of each system user that the modules declare; the frontend's own where it has the user."""
    declared = {name: number for module in modules for name, number in module.manifest.users.items()}
    return {name: existing_uid(name, number) for name, number in declared.items()}


def existing_uid(name: str, otherwise: int, passwd: Path = Path("/etc/passwd")) -> int:
    """The uid of the user `name` on this machine, or `otherwise`."""
    for line in passwd.read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return int(fields[2])
    return otherwise


def uid_variables(modules: Sequence[Module] | Enabled) -> dict[str, str]:
    """KESTRELPI_UID_<USER> for scripts that declare them."""
    return {variable("uid", name): str(number) for name, number in module_uids(modules).items()}
