"""A root whose builds, rollbacks and clean-ups are killed, and what must be true of it at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kestrelpi.images.store import Generation, Store
from kestrelpi.images.tree import tree_hash
from kestrelpi.paths import Paths
from tests.program import program
from tests.waiting import until

from . import support

DYING = 5.0
"""Seconds within which the kernel has taken down all of a killed command."""
WEIGHTS = {"build": 8, "long build": 6, "publish": 4, "rollback": 4, "gc": 4, "remove": 2, "packages": 1}
"""How often each operation is chosen."""
PACKAGES = 15.0
"""Seconds: less than installing all packages takes, in which they are resolved and the first are unpacked."""
EDITED = "#!/bin/sh\n# needs: KESTRELPI_ROOT\nset -e\necho {number} >$KESTRELPI_ROOT/etc/{name}\n"
CHROOT = "#!/bin/sh\nset -e\necho {number} >/etc/{name}\n"
BULKY = "#!/bin/sh\n# needs: KESTRELPI_ROOT\nset -e\nhead -c {bytes} /dev/urandom >$KESTRELPI_ROOT/var/bulk\n"


@dataclass
class Torture:
    """Commands on one root, killed or not, and checks after each."""

    paths: Paths
    """As the tests see the root."""
    root: Path
    """As the commands see it."""
    dice: random.Random
    prefix: tuple[str, ...] = ()
    """Goes before each command."""
    edits: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each kind of operation takes when nobody kills it; the command's own start is `start`."""

    # what is done

    def command(self, *words: str) -> list[str]:
        return [*self.prefix, *program(self.root, *words)]

    def edit(self, phase: str, name: str, template: str, **values: object) -> None:
        """Write a script that no build has seen, so that the next one has work from there on."""
        self.edits += 1
        path = self.paths.etc / "node" / f"{phase}.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.format(number=self.edits, name=name, **values))
        path.chmod(0o755)

    def words(self, operation: str) -> list[str]:
        """The command of one kind of operation, on something chosen at random."""
        if operation == "build":
            self.edit("configure", "95-edited", EDITED)
            self.edit("configure", "96-edited.chroot", CHROOT)
            return ["images", "build", "default"]
        if operation == "packages":
            self.edit("install", "05-edited", EDITED)
            return ["images", "build", "default"]
        if operation == "long build":
            self.edit("configure", "05-edited", EDITED)
            return ["images", "build", "default"]
        if operation == "gc":
            return ["images", "gc", "--keep", str(self.dice.randint(0, 2))]
        ids = [one.id for one in Store(self.paths).generations("default")]
        return ["images", operation, "default", self.dice.choice(ids)]

    def finish(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, check=False)

    def learn(self) -> None:
        """Measure how long each operation takes."""
        for name in ("build", "long build", "publish", "rollback", "gc"):
            words = self.words(name)
            begun = time.monotonic()
            done = self.finish(*words)
            assert done.returncode == 0, done.stderr
            self.seconds[name] = time.monotonic() - begun
        begun = time.monotonic()
        assert self.finish("images", "list").returncode == 0
        self.seconds["start"] = time.monotonic() - begun
        assert self.finish(*self.words("build")).returncode == 0

    def kill_one(self) -> bool:
        """Begin an operation and kill its process at a random moment; returns whether it was still running then."""
        operation = self.dice.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        usual = PACKAGES if operation == "packages" else self.seconds.get(operation, self.seconds["rollback"])
        moment = self.dice.uniform(0.7 * min(self.seconds["start"], usual), usual)
        begun = time.monotonic()
        process = subprocess.Popen(
            self.command(*self.words(operation)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.wait(moment)
            self.seconds[operation] = time.monotonic() - begun  # the machine is less busy than it was
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        (self.paths.etc / "node/install.d/05-edited").unlink(missing_ok=True)  # the next build is a warm one again
        assert b"Traceback" not in errors, errors.decode()
        killed = process.returncode == -signal.SIGKILL
        print(f"{operation}, {moment:.2f} s of {usual:.2f}: {'killed' if killed else 'had ended'}", flush=True)
        return killed

    # what must be true

    def check(self) -> None:
        """Nothing of a killed command is left; all generations are whole; the lock is free."""
        until(lambda: not processes_of(self.root), lambda: f"the end of {processes_of(self.root)}", DYING)
        assert support.mounts_below(self.root) == []
        with (self.paths.state / "build.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        store = Store(self.paths)
        current = store.current("default")
        assert current is not None
        for one in store.generations("default"):
            check_whole(one, count=one.id == current.id)

    def build(self) -> Generation:
        """An ordinary build: it works, and nothing half made is left."""
        done = self.finish("images", "build", "default")
        assert done.returncode == 0, done.stderr
        current = Store(self.paths).current("default")
        assert current is not None
        check_whole(current, count=True)
        script = self.paths.etc / "node/configure.d/95-edited"
        assert f"echo {(current.root / 'etc/95-edited').read_text().strip()} >" in script.read_text()
        assert support.drafts(self.paths) == []
        return current

    def examine(self) -> None:
        """What the manifest says of the current generation is so, down to each file's bytes; all its parts fit."""
        current = Store(self.paths).current("default")
        assert current is not None
        assert tree_hash(current.root) == current.manifest.tree
        done = self.finish("images", "lint", "default")
        assert done.returncode == 0, done.stdout + done.stderr


def check_whole(generation: Generation, *, count: bool) -> None:
    """All that the manifest speaks of is there, and `current` may point at it."""
    manifest = generation.manifest
    assert json.loads((generation.folder / "build.json").read_text())["steps"]
    for name, info in manifest.boot.items():
        assert (generation.boot / name).stat().st_size == info.size, name
    assert (generation.root / "etc/.updated").is_file()
    if count:
        names = [name for parent, folders, files in os.walk(generation.root) for name in files + links(parent, folders)]
        assert len(names) >= manifest.files


def links(parent: str, folders: Sequence[str]) -> list[str]:
    """Of the folders in `parent` those that are symbolic links."""
    return [name for name in folders if (Path(parent) / name).is_symlink()]


def processes_of(root: Path) -> list[str]:
    """Processes that work on `root`: by their command lines, folders, or mounts in namespaces other than ours."""
    own, text, found = Path("/proc/self/ns/mnt").stat().st_ino, str(root), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            foreign = (folder / "ns/mnt").stat().st_ino != own
            mounts = (folder / "mountinfo").read_text() if foreign else ""
        except (FileNotFoundError, ProcessLookupError, PermissionError, OSError):
            continue
        if int(folder.name) != os.getpid() and (f"{text}/" in mounts or f" {text} " in line):
            found.append(f"{folder.name} {line}")
    return found
