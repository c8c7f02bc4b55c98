"""Building an image: from the first step that changed to a generation that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from kestrelpi import run
from kestrelpi.config import Config
from kestrelpi.errors import UserError
from kestrelpi.files import locked, write_whole
from kestrelpi.images import account, binfmt, bootdir, capabilities, forced, secret_scan, squashfs, steps, versions
from kestrelpi.images.fetched import verify_all
from kestrelpi.images.flatten import flatten
from kestrelpi.images.layers import DRAFT, Draft, LayerInfo, Layers, remove_tree, sync_tree
from kestrelpi.images.manifest import BuildRecord, Manifest, StepRecord, installed_packages
from kestrelpi.images.plan import PHASES, BuildPlan, Step, plan
from kestrelpi.images.store import Generation, Store, new_id
from kestrelpi.images.workshop import Versions, Workshop, opened
from kestrelpi.paths import Paths

NEEDED_BYTES = 3 * 1024**3
"""Free disk that a cold build must find: it takes about half of that."""

NO_SPACE = "No space left on device"
"""strerror(3) of ENOSPC, as programs say it."""


class Watcher(Protocol):
    """Is told how a build gets on."""

    def begin(self, plan: BuildPlan) -> None: ...
    def start(self, step: Step) -> None: ...
    def line(self, text: str) -> None: ...
    def done(self, record: StepRecord) -> None: ...


Gate = Callable[[Generation], None]
"""Looks at a finished generation before it gets its name; what it raises refuses it."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, plan: BuildPlan) -> None: ...
    def start(self, step: Step) -> None: ...
    def line(self, text: str) -> None: ...
    def done(self, record: StepRecord) -> None: ...


def build(
    paths: Paths,
    config: Config,
    image: str,
    *,
    force: str = "",
    watch: Watcher | None = None,
    where: str = "",
    gate: Gate | None = None,
    publish: bool = True,
    versions: Versions | None = None,
) -> Generation:
    """Build what changed and make the result current; without any change, return the generation that is there.

    `force`: name of the phase from which on everything runs anew, with the newest packages if that is among it;
    `publish`: False leaves it to the caller to make it current (releasing.making does). Raises UserError; the
    generation that was current still is then.
    """
    watch = watch or Silent()
    versions = versions or Versions()
    plan(paths, config, image, where, locked=versions.locked)  # what the user must mend is found first
    with locked(paths.state / "build.lock", "the image builder", wait=1.0), disk_errors(paths.state):
        if force:
            forced.remember(paths, image, force, PHASES)
        todo = plan(paths, config, image, where, locked=versions.locked)
        store, layers = Store(paths), Layers(paths.cache / "layers")
        layers.clean()
        store.clean()
        watch.begin(todo)
        if todo.made:
            account.keep_lock(paths, todo.made, todo)
            if publish:
                store.switch(todo.made)
            return todo.made
        if not all(step.cached for step in todo.steps):
            preflight(paths, todo)
            verify_all(todo.to_verify)  # again when they are used: but then the build has run for a while
        started = time.monotonic()
        newest = bool(force) and PHASES.index(force) <= PHASES.index("packages")
        keep = None if newest else versions.keep or account.kept_versions(todo.current, todo.suite)
        with opened(paths, todo, layers, watch.line, keep, versions.chosen) as shop:
            records = [run_step(todo, number, shop, paths, watch) for number in range(len(todo.steps))]
            seconds = time.monotonic() - started
            generation = assemble(todo, layers, store, records, seconds, shop.folder, watch, gate)
        account.keep_lock(paths, generation, todo)
        if publish:
            store.switch(generation)
        return generation


def preflight(paths: Paths, plan: BuildPlan) -> None:
    """Raise UserError for what would stop the build half-way."""
    if os.geteuid() != 0:
        raise UserError(
            "building an image takes root: it makes devices, owners and mounts", fix="sudo kestrelpi images build"
        )
    binfmt.check()
    packers = ("libdeflate-gzip", *(("mksquashfs",) if plan.root == "squashfs" else ()))
    for program in ("debootstrap", "dpkg-deb", "apt-get", "setpriv", "unshare", *packers):
        if shutil.which(program, path=run.PATH) is None:
            raise run.missing(program)
    if not plan.mirror.keyring.is_file():
        raise UserError(
            "the key ring that Debian's packages are signed with is not there",
            where=str(plan.mirror.keyring),
            fix="apt-get install debian-archive-keyring",
        )
    check_filesystem(run.run(["stat", "-f", "-c", "%T", paths.state]).stdout.strip(), paths.state)
    free = steps.free_bytes(paths.state)
    if not plan.steps[0].cached and free < NEEDED_BYTES:
        raise no_space(paths.state, free)


def check_filesystem(kind: str, folder: Path) -> None:
    """Raise UserError when an overlay can't be written to this kind of file system (stat(1)'s name for it)."""
    if kind in ("overlayfs", "aufs", "nfs", "fuseblk", "msdos", "exfat", "cifs", "smb2"):
        raise UserError(
            f"images can't be built on the file system {kind}: an overlay can't be written there",
            where=str(folder),
            fix="give --root a folder on ext4, xfs, btrfs or tmpfs (in a container: a volume)",
        )


def no_space(folder: Path, free: int) -> UserError:
    return UserError(
        f"the disk is full: {free / 1e6:.0f} MB are free, a build from nothing takes {NEEDED_BYTES / 1e9:.0f} GB",
        where=str(folder),
        fix="free some space (kestrelpi images gc removes old layers), or use --root on a larger disk",
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn "no space left", ours and that of programs, into an error that says where and what to do."""
    try:
        yield
    except (OSError, run.CommandFailed) as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) if isinstance(error, OSError) else NO_SPACE in error.detail
        if full:
            raise no_space(folder, steps.free_bytes(folder)) from error
        raise


def run_step(plan: BuildPlan, number: int, shop: Workshop, paths: Paths, watch: Watcher) -> StepRecord:
    """Carry out one step unless its layer is there, and seal the layer."""
    step = plan.steps[number]
    log = log_path(paths, plan.image, shop.started, step)
    watch.start(step)
    begun = time.monotonic()
    if not step.cached:
        below = [one.key for one in plan.steps[:number]]
        with shop.layers.draft(step.key) as draft:
            epoch = carry_out(step, below, draft, shop, log)
            seconds = round(time.monotonic() - begun, 3)
            info = LayerInfo(step.key, step.phase, step.name, step.fields, seconds, epoch=epoch)
            shop.layers.seal(draft, info)
    record = StepRecord(
        step.phase,
        step.name,
        step.origin,
        str(step.path or ""),
        tuple(str(one) for one in step.overrides),
        step.key,
        step.cached,
        step.stale,
        round(time.monotonic() - begun, 3),
        "" if step.cached else str(log),
    )
    watch.done(record)
    return record


def carry_out(step: Step, below: list[str], draft: Draft, shop: Workshop, log: Path) -> int:
    """One step; a command's failure becomes an error that names the script, its last lines and the log."""
    try:
        epoch = steps.carry_out(step, below, draft, shop, log)
        steps.check_layer(draft.tree)
    except run.CommandFailed as error:
        if NO_SPACE in error.detail:
            raise no_space(shop.layers.folder, steps.free_bytes(shop.layers.folder)) from error
        raise UserError(
            f"{step.phase} {step.name} failed with status {error.returncode}",
            where=str(step.path or step.name),
            detail=error.detail,
            fix="\n  ".join([f"the whole log: {log}", *shell_at(shop.plan.image, step)]),
        ) from error
    return epoch


def shell_at(image: str, step: Step) -> list[str]:
    """A line with the command that opens a shell at a step; none for the first, before which there is no root."""
    command = f"kestrelpi images shell {image} --at {step.phase}/{step.name}"
    return [] if step.kind == "bootstrap" else [f"a shell where it failed: {command}"]


UPDATED = ("etc/.updated", "var/.updated")


def mark_updated(root: Path) -> None:
    """Tell systemd that /etc and /var fit /usr (systemd-update-done.service(8)).

    Else every boot would make caches and users anew, in RAM.
    """
    moment = (root / "usr").stat().st_mtime_ns + 10**9
    for name in UPDATED:
        path = root / name
        path.unlink(missing_ok=True)  # a layer's file: its content may not change
        path.write_text(f"TIMESTAMP_NSEC={moment}\n")
        os.utime(path, ns=(moment, moment))


def squash(plan: BuildPlan, layers: Layers, draft: Path, scratch: Path) -> None:
    """Pack the root of the draft of a generation, if its image's nodes mount it so."""
    if plan.root == "squashfs":
        (scratch / "squashfs").mkdir()
        keys = tuple(step.key for step in plan.steps)
        squashfs.make(layers, keys, draft / "root", UPDATED, draft / "squashfs", scratch / "squashfs")


def log_path(paths: Paths, image: str, started: str, step: Step) -> Path:
    return paths.log / "images" / image / started / f"{step.phase}-{step.name}.log"


def assemble(
    plan: BuildPlan,
    layers: Layers,
    store: Store,
    records: list[StepRecord],
    seconds: float,
    scratch: Path,
    watch: Watcher,
    gate: Gate | None = None,
) -> Generation:
    """Flatten the layers, make the boot files, write the manifest, have it examined, give it its name."""
    keys = tuple(step.key for step in plan.steps)
    id = new_id((*keys, plan.boot_key))
    folder = store.folder(plan.image)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{DRAFT}{id}"
    draft.mkdir()
    try:
        begun = time.monotonic()
        count = flatten([layers.tree(key) for key in reversed(keys)], draft / "root")
        mark_updated(draft / "root")
        if plan.root == "nfs":
            capabilities.write_list(draft / "root")
        secret_scan.check(draft / "root", plan.settings.paths, plan.image, plan.allow_secrets)
        account.settle(draft / "root", layers, keys)
        overlay = {name: one.path for name, one in plan.initramfs.items()}
        with ThreadPoolExecutor(1) as beside:
            packed = beside.submit(squash, plan, layers, draft, scratch)
            report = bootdir.build(draft / "root", overlay, draft / "boot", layers.folder.parent / "packed")
            packed.result()
        last = StepRecord(
            "generation",
            "boot files",
            "kestrelpi",
            "",
            (),
            plan.boot_key,
            False,
            "",
            round(time.monotonic() - begun, 3),
            "",
        )
        packages = installed_packages((draft / "root/var/lib/dpkg/status").read_text())
        versions.check(plan.modules, packages)
        manifest = Manifest(
            id,
            plan.image,
            plan.suite,
            datetime.now(UTC).isoformat(timespec="seconds"),
            report.kernel,
            packages,
            report.files,
            keys,
            count,
            tuple(module.name for module in plan.modules),
            plan.boot_key,
            account.write(draft, plan, layers, id),
        )
        write_whole(draft / "manifest.json", manifest.to_json())
        whole = BuildRecord(manifest.created, round(seconds + last.seconds, 3), (*records, last))
        write_whole(draft / "build.json", whole.to_json())
        sync_tree(draft / "boot")
        watch.done(last)
        if gate:
            gate(Generation(plan.image, id, draft))
        return store.add(draft, plan.image, id)
    finally:
        remove_tree(draft)
