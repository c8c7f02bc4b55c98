"""Options of modules: their values by type, and as variables of scripts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from kestrelpi.config.values import Duration, Size
from kestrelpi.images.module_file import SHA256, Option

Value = str | int | bool
"""bool for bool; int for int; Size (bytes) for size; Duration (seconds) for duration; else str."""
Values = Mapping[str, Value]

TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")


class BadOption(ValueError):
    """An option that there isn't, or a value that it can't have; `option` is its name, `fix` what to do."""

    def __init__(self, option: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.option = option
        self.fix = fix


def values(declared: Mapping[str, Option], given: Mapping[str, str]) -> dict[str, Value]:
    """The value of each declared option: the given text, else the default. Raises BadOption."""
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            known = f"options: {', '.join(declared)}" if declared else "it has no options"
            raise BadOption(name, f"there is no option {name!r}", f"did you mean {near[0]}?" if near else known)
    return {name: convert(name, option, given.get(name, option.default)) for name, option in declared.items()}


def convert(name: str, option: Option, text: str) -> Value:
    """`text` as the option's type; raises BadOption."""
    if option.type == "choice" and text not in option.choices:
        raise BadOption(name, f"{name} is {text!r}", f"it must be one of: {', '.join(option.choices)}")
    parse, described = PARSERS[option.type]
    try:
        return parse(text)
    except ValueError:
        raise BadOption(name, f"{name} is {text!r}", f"it must be {described}") from None


def _path(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._+@-]+)+", text):
        raise ValueError(text)
    return text


def _sha256(text: str) -> str:
    if text and not SHA256.fullmatch(text.strip().lower()):
        raise ValueError(text)
    return text.strip().lower()


def _boolean(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError(text)


PARSERS: Mapping[str, tuple[Callable[[str], Value], str]] = {
    "str": (str, "text"),
    "choice": (str, "text"),
    "path": (_path, "an absolute path of letters, digits and . _ + @ - (such as /data)"),
    "sha256": (_sha256, "64 hexadecimal digits, or nothing"),
    "int": (int, "a whole number"),
    "bool": (_boolean, "true or false"),
    "size": (Size.parse, "a size such as 512K, 128M or 2G"),
    "duration": (Duration.parse, "a time such as 90s, 15m, 12h or 7d"),
}


def variable(module: str, option: str) -> str:
    """The name of the variable that scripts ask for: KESTRELPI_SLURM_PARTITION."""
    return re.sub(r"[^A-Z0-9]", "_", f"KESTRELPI_{module}_{option}".upper())


def text_of(value: Value) -> str:
    """A value as scripts get it: yes or no, bytes, seconds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, int) else value
