"""SSH connections that are kept open: on one, a command costs a tenth of what logging in does."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.nodes.entering import ssh_command
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths

SILENT = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
"""A connection to a node that was switched off ends after a minute; a busy node may take that long to answer."""
MOST = 64
"""Connections that are kept, some megabytes each; to the nodes beyond them each command logs in by itself."""
OPEN_WITHIN = 45.0
"""Seconds; longer than ssh_command waits for a node that is off."""


class Connections:
    """Commands to nodes as root; each node's connection opens with its first command.

    A context manager; the connections end with it, or with this process, however that ends: each runs `cat` on the
    node, which reads from us. See ssh(1), -M and -S.
    """

    def __init__(self, paths: Paths, config: Config, enter: Callable[[Sequence[str]], list[str]]) -> None:
        self.paths, self.config, self.enter = paths, config, enter
        self._open: dict[str, run.Process] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kestrelpi-ssh-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, node: Node, command: str, *, stdin: str | None = None, timeout: float | None = None) -> str:
        """What a shell command prints; raises CommandFailed, with ssh's status 255 when the node can't be reached."""
        with self._locks.setdefault(node.name, threading.Lock()):
            self._connect(node)
        argv = self._argv(node, "-S", str(self._socket(node)), words=[command])
        return run.run(argv, stdin=stdin, timeout=timeout, name=f"{command} on {node.name}").stdout

    def _connect(self, node: Node) -> None:
        """Open the connection unless it is; raises CommandFailed."""
        process = self._open.get(node.name)
        if process and process.poll() is None:
            return
        if not process and len(self._open) >= MOST:
            return
        socket = self._socket(node)
        socket.unlink(missing_ok=True)  # of one that was killed
        argv = self._argv(node, "-M", "-S", str(socket), *SILENT, words=["cat"])
        log = socket.with_suffix(".log")
        with log.open("wb") as out:
            process = self._open[node.name] = run.start(argv, stdin=run.PIPE, output=out)
        self._stack.callback(run.stop, process)
        deadline = time.monotonic() + OPEN_WITHIN
        while not socket.exists() and time.monotonic() < deadline:  # without one, each command logs in by itself
            if process.poll() is not None:
                raise run.CommandFailed(argv, process.returncode, log.read_text(errors="replace").strip())
            time.sleep(0.02)

    def _argv(self, node: Node, *options: str, words: Sequence[str]) -> list[str]:
        ssh, *rest = ssh_command(self.paths, self.config, node, words)
        return self.enter([ssh, *options, *rest])

    def _socket(self, node: Node) -> Path:
        return self._folder / node.name
