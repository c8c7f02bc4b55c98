"""The documentation says what is so: its links lead somewhere, its commands exist, its tables are complete."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from kestrelpi.cli import cli
from kestrelpi.config import Config
from kestrelpi.images import module_file
from kestrelpi.nodes.boots import Stage
from kestrelpi.nodes.models import OUIS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EVERYWHERE = [*PAGES, ROOT / "README.md", *sorted((ROOT / "modules").glob("*/README.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Names of headings as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text()))
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", EVERYWHERE, ids=names)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(there), f"{target}: no such heading"


def commands(page: Path) -> Iterator[list[str]]:
    """What follows `kestrelpi` in each command of a page."""
    for block, inline in CODE.findall(page.read_text()):
        for line in (block or inline).splitlines():
            line = line.replace("\\|", "|").strip()
            if line.startswith("kestrelpi ") and "[--root" not in line:
                yield shlex.split(line.removeprefix("kestrelpi "), comments=True)


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` name, and the words after it."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            words = words[1:]
        if not words:
            break
        found = command.get_command(click.Context(command), words[0])
        assert found, f"there is no command {words[0]!r} in {command.name}"
        command, words = found, words[1:]
    return command, words


def options(command: click.Command) -> set[str]:
    return {
        name for one in command.params if isinstance(one, click.Option) for name in (*one.opts, *one.secondary_opts)
    }


@pytest.mark.parametrize("page", EVERYWHERE, ids=names)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command, rest = find(words)
        passes_on = command.context_settings.get("ignore_unknown_options")
        for word in rest if not passes_on else ():
            name = word.strip("[]").partition("=")[0]
            assert not name.startswith("--") or name in options(command) | {"--help"}, f"{shlex.join(words)}: {name}"


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        one = command.get_command(context, name)
        assert one
        yield from leaves(one, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"), list(leaves(cli, "kestrelpi")), ids=lambda one: one if isinstance(one, str) else ""
)
def test_every_command_is_in_the_reference(path: str, command: click.Command) -> None:
    text = (DOCS / "reference/cli.md").read_text()
    section = next(
        (one for one in re.split(r"^## ", text, flags=re.MULTILINE) if one.startswith(" ".join(path.split()[:2]))), ""
    )
    assert re.search(rf"{re.escape(path)}\b", section), f"{path} is missing"
    for option in options(command):
        assert f"`{option}" in section, f"{path} {option} is missing"


def keys(kind: type, path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names of all keys of the configuration with their defaults, as configuration.md writes them."""
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        wanted = hints[one.name]
        name = f"{path}{one.name}"
        if dataclasses.is_dataclass(wanted) and one.default_factory is not dataclasses.MISSING:
            yield from keys(typing.cast(type, wanted), f"{name}.")
        elif typing.get_origin(wanted) is not None and issubclass(_class(wanted), Mapping):
            below = typing.get_args(wanted)[1]
            if dataclasses.is_dataclass(below):
                yield from keys(typing.cast(type, below), f"{name}.NAME.")
            else:
                yield name, dataclasses.MISSING
        else:
            yield name, one.default


def _class(wanted: object) -> type:
    origin = typing.get_origin(wanted)
    return origin if isinstance(origin, type) else object


@pytest.mark.parametrize(("key", "default"), list(keys(Config)))
def test_every_key_of_the_configuration_is_in_the_reference_with_its_default(key: str, default: object) -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| (.*?) \| (.*?) \|", (DOCS / "reference/configuration.md").read_text(), re.MULTILINE
    )
    found = {name: text for name, _, text in rows}
    assert key in found
    if isinstance(default, bool):
        assert found[key] == f"`{str(default).lower()}`"
    elif isinstance(default, (str, int)) and default not in ("", 0) and not re.fullmatch(r"`\d+[smhd]`", found[key]):
        assert found[key] == f"`{default}`"


def test_no_key_of_the_reference_is_gone() -> None:
    text = (DOCS / "reference/configuration.md").read_text()
    assert set(re.findall(r"^\| `([a-z_.NAME]+)` \|", text, re.MULTILINE)) == {key for key, _ in keys(Config)}


def test_stages_and_prefixes_are_in_the_reference() -> None:
    http = (DOCS / "reference/http.md").read_text()
    for stage in Stage:
        assert f"`{stage.value}`" in http
    boot = (DOCS / "reference/network-boot.md").read_text()
    assert set(re.findall(r"`((?:[0-9a-f]{2}:){2}[0-9a-f]{2})`", boot)) == set(OUIS)


def test_every_key_of_module_yaml_is_in_the_reference() -> None:
    text = (DOCS / "reference/modules.md").read_text()
    for kind in (module_file.Manifest, module_file.Option, module_file.Secret, module_file.Service, module_file.Ready):
        for one in dataclasses.fields(kind):
            assert f"`{one.name}`" in text, f"{kind.__name__}.{one.name}"


def finding_names() -> set[str]:
    """What stands before a severity in the code."""
    found: set[str] = set()
    for path in (ROOT / "kestrelpi").rglob("*.py"):
        found |= set(re.findall(r'"([a-z]+(?:-[a-z]+)*)",\s*Severity\.[A-Z]+(?![A-Z:])', path.read_text()))
    return found


def test_every_finding_is_in_the_how_to() -> None:
    text = (DOCS / "how-to/a-pi-does-not-come-up.md").read_text()
    section = text.partition("## Findings")[2].partition("\n## Nothing")[0]
    names = finding_names()
    assert len(names) > 25
    assert [name for name in sorted(names) if f"`{name}`" not in section] == []


def test_every_metric_is_in_the_reference() -> None:
    text = (DOCS / "reference/http.md").read_text()
    names = set(re.findall(r'"(kestrelpi_\w+)"', (ROOT / "kestrelpi/services/metrics.py").read_text()))
    assert len(names) > 15
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
