"""The last part of a build: a generation out of layers, that appears whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.images import account, bootdir, capabilities, secret_scan, squashfs, versions
from kestrelpi.images.flatten import flatten
from kestrelpi.images.layers import DRAFT, Layers, remove_tree, sync_tree
from kestrelpi.images.manifest import BuildRecord, Manifest, StepRecord, installed_packages
from kestrelpi.images.plan import BuildPlan
from kestrelpi.images.store import Generation, Store, new_id
from kestrelpi.images.watcher import Watcher

Gate = Callable[[Generation], None]
"""Looks at a finished generation before it gets its name; what it raises refuses it."""


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


def squash(plan: BuildPlan, layers: Layers, store: Store, draft: Path, scratch: Path) -> None:
    """Pack the root of the draft of a generation, if its image's nodes mount it so."""
    if plan.root == "squashfs":
        (scratch / "squashfs").mkdir()
        keys = tuple(step.key for step in plan.steps)
        # a build by a lock file depends on nothing that was built before
        others = None if plan.lock else partial(stacks, store, plan.image)
        squashfs.make(layers, keys, draft / "root", UPDATED, draft / "squashfs", scratch / "squashfs", others)


def stacks(store: Store, image: str) -> Iterator[Sequence[str]]:
    """The layers' keys of each generation: first those of `image`, the newest first."""
    for name in (image, *(other for other in store.images() if other != image)):
        for generation in reversed(store.generations(name)):
            yield generation.manifest.keys


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
            packed = beside.submit(squash, plan, layers, store, draft, scratch)
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
            account.hash_root(draft / "root", layers, keys),
        )
        account.write(draft, manifest, account.lock_of(plan, layers))
        whole = BuildRecord(manifest.created, round(seconds + last.seconds, 3), (*records, last))
        write_whole(draft / "build.json", whole.to_json())
        sync_tree(draft / "boot")
        watch.done(last)
        if gate:
            gate(Generation(plan.image, id, draft))
        return store.add(draft, plan.image, id)
    finally:
        remove_tree(draft)
