"""What earlier runs of reconfigure did to the frontend: one JSON file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole


@dataclass
class State:
    """Kept in `frontend.json`."""

    files: dict[str, str] = field(default_factory=dict)
    """Files that we made, each with the hash of what we wrote; files that were there before us never stand here."""
    installed: dict[str, str] = field(default_factory=dict)
    """Scripts of the install phase that ran, each with the hash of its bytes."""
    config: str = ""
    """The configuration that the services were told of last."""
    network: str = ""
    """Its parts that the services take over only when they are started."""


def read(path: Path) -> State:
    """The state; an empty one when there is none. Raises UserError when the file isn't ours."""
    try:
        return State(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return State()
    except (ValueError, TypeError) as error:
        raise UserError(f"this is not the state of reconfigure: {error}", where=str(path), fix="remove it") from error


def write(path: Path, state: State) -> None:
    write_whole(path, json.dumps(asdict(state), indent=1, sort_keys=True) + "\n")


def config_mark(config: Config) -> str:
    """Changes when anything in the configuration does."""
    return _hash(repr(config))


def network_mark(config: Config) -> str:
    """Changes when `network` or `services` do."""
    return _hash(repr((config.network, config.services)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
