"""Asking the running daemon over its unix socket, which works across network namespaces too."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from kestrelpi.errors import UserError
from kestrelpi.paths import Paths

TIMEOUT = 5.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def status(paths: Paths) -> dict[str, Any]:
    """What the daemon says of itself and the nodes; raises UserError when none runs."""
    path = paths.run / "serve.sock"
    connection = _Connection(path)
    try:
        connection.request("GET", "/v1/status")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            "kestrelpi serve does not answer",
            where=str(path),
            fix="start it: kestrelpi serve, or systemctl start kestrelpi",
        ) from error
    finally:
        connection.close()
    return answer
