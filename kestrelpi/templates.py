"""Jinja2 as overlays and scripts use it: a name that isn't defined is an error, never an empty string."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import jinja2

from kestrelpi.errors import UserError

ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


def render(path: Path, variables: Mapping[str, object]) -> str:
    """The file `path` rendered with `variables`; raises UserError with file:line of the template."""
    stat = path.stat()
    try:
        return _template(path, stat.st_mtime_ns, stat.st_size).render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"template: {error.message}", where=f"{path}:{error.lineno}") from error
    except jinja2.UndefinedError as error:
        raise UserError(
            f"template: {error.message}", where=str(path), fix=f"known names: {', '.join(sorted(variables))}"
        ) from error


def render_text(text: str, variables: Mapping[str, object]) -> str:
    """A short template that stands in a configuration file; raises UserError with the template itself."""
    try:
        return _text_template(text).render(variables)
    except jinja2.TemplateError as error:
        raise UserError(f"template: {error.message}", where=text) from error


@lru_cache(maxsize=256)
def _text_template(text: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(text)


@lru_cache(maxsize=256)
def _template(path: Path, mtime_ns: int, size: int) -> jinja2.Template:
    """Compiled once per version of the file; `mtime_ns` and `size` are there for the cache's key."""
    return ENVIRONMENT.from_string(path.read_text(encoding="utf-8"))
