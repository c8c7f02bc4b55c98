"""Changing the list of an image's modules in kestrelpi.yaml, with every comment and every other line left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import yaml

from kestrelpi.config.load import parse
from kestrelpi.errors import UserError


def set_modules(text: str, image: str, wanted: Sequence[str], name: str = "kestrelpi.yaml") -> str:
    """`text` with images.<image>.modules being `wanted`; `name` is the file's for errors.

    Raises UserError when the file is written in a way that this can't change; nothing is guessed.
    """
    before = parse(text, name)
    expected = replace(before, images={**before.images, image: replace(before.images[image], modules=tuple(wanted))})
    new = _edited(text, image, wanted)
    if parse(new, name) != expected:
        raise UserError(
            f"the modules of {image} stand here in a way that can't be changed safely",
            where=name,
            fix=f"write it by hand: images: {{{image}: {{modules: [{', '.join(wanted)}]}}}}",
        )
    return new


def _edited(text: str, image: str, wanted: Sequence[str]) -> str:
    line = f"modules: [{', '.join(wanted)}]"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return f"{_ended(text)}images:\n  {image}:\n    {line}\n"
    images = _value(root, "images")
    if not isinstance(images, yaml.MappingNode):
        if images is not None:
            return text  # `images:` without a value, or nonsense: the check of the result refuses it
        return f"{_ended(text)}images:\n  {image}:\n    {line}\n"
    found = _value(images, image)
    if found is None:
        return _insert(text, images.start_mark, f"{image}: {{{line}}}")
    if not isinstance(found, yaml.MappingNode):
        indent = " " * (_key(images, image).start_mark.column + 2)
        return _after_line(text, _key(images, image).start_mark.line, f"{indent}{line}")
    modules = _value(found, "modules")
    if modules is None:
        return _insert(text, found.start_mark, line)
    if not isinstance(modules, yaml.SequenceNode):
        return text
    if modules.flow_style or not wanted:
        end = modules.end_mark.index if modules.flow_style else modules.value[-1].end_mark.index
        return f"{text[: modules.start_mark.index]}[{', '.join(wanted)}]{text[end:]}"
    return _block(text, modules, wanted)


def _block(text: str, modules: yaml.SequenceNode, wanted: Sequence[str]) -> str:
    """A list with one item a line: only the lines of items that come or go are touched."""
    lines = text.splitlines(keepends=True)
    indent = " " * modules.start_mark.column
    there = [item.value for item in modules.value]
    more = [f"{indent}- {name}\n" for name in wanted if name not in there]
    last = modules.value[-1].start_mark.line
    lines[last] = _ended(lines[last])
    lines[last + 1 : last + 1] = more
    for item in reversed(modules.value):
        if item.value not in wanted:
            del lines[item.start_mark.line]
    return "".join(lines)


def _insert(text: str, mark: yaml.Mark, line: str) -> str:
    """`line` as the first key of the mapping that begins at `mark`."""
    if text[mark.index] == "{":
        rest = text[mark.index + 1 :]
        return f"{text[: mark.index + 1]}{line}{'' if rest.lstrip().startswith('}') else ', '}{rest}"
    return f"{text[: mark.index]}{line}\n{' ' * mark.column}{text[mark.index :]}"


def _after_line(text: str, number: int, line: str) -> str:
    lines = text.splitlines(keepends=True)
    lines[number] = _ended(lines[number])
    return "".join([*lines[: number + 1], f"{line}\n", *lines[number + 1 :]])


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _pair(mapping: yaml.MappingNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next((pair for pair in mapping.value if pair[0].value == key), None)


def _value(mapping: yaml.MappingNode, key: str) -> yaml.Node | None:
    pair = _pair(mapping, key)
    return pair[1] if pair else None


def _key(mapping: yaml.MappingNode, key: str) -> yaml.Node:
    pair = _pair(mapping, key)
    assert pair
    return pair[0]
