"""The only importer of subprocess: argv lists, a built environment, output streamed to a log."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kestrelpi import terminal
from kestrelpi.errors import UserError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
TAIL = 20
"""How many last lines of output an error shows."""


Process = subprocess.Popen[bytes]
"""What `start` gives."""
PIPE = subprocess.PIPE
"""For `start`: what the command reads comes from its `stdin`."""


@dataclass(frozen=True)
class Finished:
    """A command that ended well."""

    argv: tuple[str, ...]
    stdout: str


class CommandFailed(UserError):
    """A command ended with another status than 0; `detail` has its last lines."""

    def __init__(self, argv: Sequence[str], status: int, tail: str, where: str = "", name: str = "") -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        super().__init__(f"{name or shlex.join(argv)} {how}", where=where, detail=tail)
        self.returncode = status


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: built from nothing, so that the caller's can't leak into a build."""
    return {**BASE_ENVIRONMENT, **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    name: str = "",
) -> Finished:
    """Run a short command to its end and return its output.

    Raises CommandFailed (with the last lines of standard error and output) or UserError when the program isn't there or
    doesn't end within `timeout` seconds. Errors call the command `name`, which is all of it without.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=environment(env),
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise missing(words[0]) from error
    except subprocess.TimeoutExpired as error:
        # bytes, whatever `text` says: the documentation of subprocess.TimeoutExpired
        tail = _tail(*((output or b"").decode(errors="replace") for output in (error.stdout, error.stderr)))
        raise UserError(f"{name or shlex.join(words)} did not end within {timeout:g} s", detail=tail) from error
    if done.returncode:
        raise CommandFailed(words, done.returncode, _tail(done.stdout, done.stderr), name=name)
    return Finished(tuple(words), done.stdout)


def _tail(stdout: str, stderr: str) -> str:
    return "\n".join((stdout + stderr).splitlines()[-TAIL:])


def stream(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    line: Callable[[str], None] | None = None,
) -> None:
    """Run a long command; its output goes line by line to the end of `log` and to `line`.

    Raises CommandFailed with the last TAIL lines; `where` is the log's path.
    """
    words = [str(word) for word in argv]
    last: deque[str] = deque(maxlen=TAIL)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", errors="replace") as out:
        out.write(f"$ {shlex.join(words)}\n")
        out.flush()
        try:
            process = subprocess.Popen(
                words,
                env=environment(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except FileNotFoundError as error:
            raise missing(words[0]) from error
        with process:
            assert process.stdout is not None
            try:
                for text in process.stdout:
                    out.write(text)
                    out.flush()
                    last.append(text.rstrip("\n"))
                    if line:
                        line(text.rstrip("\n"))
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise CommandFailed(words, process.returncode, "\n".join(last), where=str(log))


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
    stdin: int = subprocess.DEVNULL,
    new_session: bool = False,
) -> Process:
    """Start a command that runs beside us; the caller owns it and ends it with `stop`."""
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            env=environment(env),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=new_session,
        )
    except FileNotFoundError as error:
        raise missing(words[0]) from error


def stop(process: Process, grace: float = 5.0) -> int:
    """End a process that `start` began: SIGTERM, after `grace` seconds SIGKILL. Returns its status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def attached(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
    """Run a command on the user's terminal to its end and return its status. Ctrl-C is its business alone."""
    words = [str(word) for word in argv]
    before = signal.signal(signal.SIGINT, lambda number, frame: None)  # not SIG_IGN, which it would inherit
    try:
        with terminal.lent():
            return subprocess.run(words, env=environment(env), check=False).returncode
    except FileNotFoundError as error:
        raise missing(words[0]) from error
    finally:
        signal.signal(signal.SIGINT, before)


def replace(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
    """Become another program that keeps the user's terminal and environment (ssh, a shell). Doesn't return."""
    words = [str(word) for word in argv]
    try:
        os.execvpe(words[0], words, {**os.environ, **(env or {})})
    except FileNotFoundError as error:
        raise missing(words[0]) from error


PACKAGE_OF = {
    "debootstrap": "debootstrap",
    "dhclient": "isc-dhcp-client",
    "dnsmasq": "dnsmasq-base",
    "exportfs": "nfs-kernel-server",
    "ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs",
    "ip": "iproute2",
    "libdeflate-gzip": "libdeflate-tools",
    "mksquashfs": "squashfs-tools",
    "qemu-system-aarch64": "qemu-system-arm",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "zstd": "zstd",
}
"""Debian's package for a program that kestrelpi calls, where the name differs or is worth saying."""


def missing(program: str) -> UserError:
    """The error for a program that isn't installed, with the package that has it."""
    package = PACKAGE_OF.get(Path(program).name)
    return UserError(
        f"the program {program} is not installed",
        fix=f"apt-get install {package}" if package else f"install the Debian package that has {program}",
    )
