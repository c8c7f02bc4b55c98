"""The line of kestrelpi.yaml at which something stands, for an error that is found only after reading it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from kestrelpi.config.model import Config
from kestrelpi.config.schema import Document, read
from kestrelpi.errors import ConfigError


def fail_at(path: Path, key: tuple[str, ...], what: str, fix: str = "") -> NoReturn:
    """Raise ConfigError at the line of `key`, such as ("images", "default", "modules"), or of its nearest parent."""
    document = _document(path)
    if document is None:
        raise ConfigError(what, where=f"{path}: {'.'.join(key)}", fix=fix)
    document.fail(key, what, fix)


def _document(path: Path) -> Document | None:
    try:
        return read(path.read_text(encoding="utf-8"), str(path), Config)[1]
    except (OSError, ConfigError):
        return None  # the configuration came from elsewhere (a test, --config)
