"""From YAML nodes to dataclasses by their annotations; every error knows its line."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import yaml

from kestrelpi.config.values import AddressRange, Duration
from kestrelpi.errors import ConfigError

T = TypeVar("T")

SCALARS: Mapping[object, tuple[typing.Callable[[str], object], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    Path: (Path, "a path"),
    IPv4Address: (IPv4Address, "an IPv4 address such as 10.77.0.1"),
    IPv4Interface: (IPv4Interface, "an IPv4 address with its prefix length such as 10.77.0.1/24"),
    AddressRange: (AddressRange.parse, "a range of IPv4 addresses such as 10.77.0.100-10.77.0.199"),
    Duration: (Duration.parse, "a time such as 90s, 15m, 12h or 7d"),
}
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass
class Document:
    """One YAML file: its name, its lines, and at which line each key stands."""

    name: str
    lines: list[str]
    positions: dict[tuple[str, ...], int] = field(default_factory=dict)

    def fail(self, path: tuple[str, ...], what: str, fix: str = "", line: int | None = None) -> NoReturn:
        """Raise ConfigError for the key at `path` (or the nearest parent that stands in the file)."""
        if line is None:
            near = path
            while near and near not in self.positions:
                near = near[:-1]
            line = self.positions.get(near, 0)
        text = self.lines[line].rstrip() if line < len(self.lines) else ""
        raise ConfigError(what, where=f"{self.name}:{line + 1}", detail=text, fix=fix)

    def convert(self, node: yaml.Node, wanted: Any, path: tuple[str, ...]) -> Any:
        """The value of `node` as `wanted`, an annotation."""
        self.positions.setdefault(path, node.start_mark.line)
        origin = get_origin(wanted)
        if origin in (Union, types.UnionType):
            return self._optional(node, wanted, path)
        if dataclasses.is_dataclass(wanted) and wanted not in SCALARS:
            return self._dataclass(node, typing.cast("type[Any]", wanted), path)
        if origin is tuple:
            return self._tuple(node, get_args(wanted)[0], path)
        if origin is not None and issubclass(_class_of(origin), Mapping):
            return {
                key: self.convert(value, get_args(wanted)[1], (*path, key)) for key, value in self._pairs(node, path)
            }
        return self._scalar(node, wanted, path)

    def _optional(self, node: yaml.Node, wanted: Any, path: tuple[str, ...]) -> Any:
        inner = [kind for kind in get_args(wanted) if kind is not type(None)]
        if node.tag == "tag:yaml.org,2002:null":
            return None
        return self.convert(node, inner[0], path)

    def _pairs(self, node: yaml.Node, path: tuple[str, ...]) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(path, f"{_dotted(path)} must be a mapping of keys to values")
        seen: dict[str, int] = {}
        pairs = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(path, "a key must be plain text", line=key.start_mark.line)
            if key.value in seen:
                first = seen[key.value] + 1
                self.fail(
                    path,
                    f"{_dotted((*path, key.value))} stands here a second time",
                    f"the first is at line {first}",
                    key.start_mark.line,
                )
            seen[key.value] = key.start_mark.line
            self.positions[(*path, key.value)] = key.start_mark.line
            pairs.append((key.value, value))
        return pairs

    def _dataclass(self, node: yaml.Node, wanted: type[Any], path: tuple[str, ...]) -> Any:
        if node.tag == "tag:yaml.org,2002:null":
            return wanted()
        hints = typing.get_type_hints(wanted)
        values = {}
        for key, value in self._pairs(node, path):
            if key not in hints:
                near = difflib.get_close_matches(key, hints, 1)
                known = ", ".join(sorted(hints))
                fix = f"did you mean {near[0]}?" if near else f"known here: {known}"
                self.fail((*path, key), f"unknown key {_dotted((*path, key))}", fix)
            values[key] = self.convert(value, hints[key], (*path, key))
        required = [
            one.name
            for one in dataclasses.fields(wanted)
            if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        ]
        for name in required:
            if name not in values:
                self.fail(path, f"{_dotted(path)} lacks {name}")
        return wanted(**values)

    def _tuple(self, node: yaml.Node, inner: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self.fail(path, f"{_dotted(path)} must be a list", "write it as [one, two] or one a line with '- '")
        return tuple(self.convert(item, inner, (*path, str(index))) for index, item in enumerate(node.value))

    def _scalar(self, node: yaml.Node, wanted: Any, path: tuple[str, ...]) -> Any:
        line = node.start_mark.line
        name = _dotted(path)
        if not isinstance(node, yaml.ScalarNode):
            self.fail(path, f"{name} must be a single value", line=line)
        if get_origin(wanted) is Literal:
            choices = [str(choice) for choice in get_args(wanted)]
            if node.value in choices:
                return node.value
            self.fail(path, f"{name} is {node.value!r}", f"it must be one of: {', '.join(choices)}", line)
        if wanted is bool:
            if node.value.lower() in BOOLEANS:
                return BOOLEANS[node.value.lower()]
            self.fail(path, f"{name} is {node.value!r}", "it must be true or false", line)
        parse, described = SCALARS[wanted]
        if wanted is str and node.tag == "tag:yaml.org,2002:null":
            return ""
        try:
            return parse(node.value)
        except ValueError:
            self.fail(path, f"{name} is {node.value!r}", f"it must be {described}", line)


def read(text: str, name: str, wanted: type[T]) -> tuple[T, Document]:
    """Parse YAML `text` from the file `name` into the dataclass `wanted`; raises ConfigError."""
    document = Document(name, text.splitlines())
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        document.fail((), f"this is not YAML: {error.problem}", line=min(line, max(len(document.lines) - 1, 0)))
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {error}", where=name) from error
    if node is None:
        return wanted(), document
    return document.convert(node, wanted, ()), document


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the file"


def _class_of(origin: object) -> type:
    return origin if isinstance(origin, type) else type(origin)
