"""What a generation says of its contents, so that others can check and repeat it: tree hash, lock file, bill."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path

from kestrelpi.files import write_whole
from kestrelpi.images import licences, sbom
from kestrelpi.images import lock as locking
from kestrelpi.images.layers import Layers
from kestrelpi.images.lock import Lock, Section
from kestrelpi.images.manifest import NAME, Manifest
from kestrelpi.images.plan import BuildPlan
from kestrelpi.images.store import Generation
from kestrelpi.images.tree import clamp, read_digests, tree_hash
from kestrelpi.paths import Paths


def write(draft: Path, manifest: Manifest, lock: Lock | None) -> None:
    """Put lock file and bill of materials into the draft of a generation."""
    packages = [(one, licences.read(draft / "root", one.name)) for one in lock.packages.values()] if lock else []
    write_whole(draft / NAME, sbom.text_of(manifest, packages))
    if lock:
        write_whole(draft / locking.NAME, lock.to_text())


def settle(root: Path, layers: Layers, keys: Sequence[str]) -> None:
    """Give what was written into a flattened root the time of its packages: files of layers have it already.

    A second more, for systemd's marks must be newer than /usr.
    """
    info = layers.info(keys[-1])
    if info and info.epoch:
        clamp(root, info.epoch + 1)


def hash_root(root: Path, layers: Layers, keys: Sequence[str]) -> str:
    """The tree hash of a flattened root; what the layers know of their files is not read again."""
    return tree_hash(root, ChainMap(*(read_digests(layers.folder / key) for key in reversed(keys))))


def lock_of(plan: BuildPlan, layers: Layers) -> Lock | None:
    """What the layers of a build have installed."""
    found: dict[str, Section] = {}
    for step in plan.steps:
        section = locking.read_section(layers.folder / step.key)
        if section:
            found[section.phase] = locking.merged(found.get(section.phase), section)
        elif step.phase in locking.PHASES:
            return None
    return Lock(plan.suite, plan.wanted.words, found)


def keep_lock(paths: Paths, generation: Generation, plan: BuildPlan) -> None:
    """Put a generation's lock file beside the image's configuration, unless the build went by that."""
    if plan.lock:
        return
    source, target = generation.folder / locking.NAME, locking.path_of(paths, generation.image)
    if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
        write_whole(target, source.read_bytes())


def kept_versions(generation: Generation | None, suite: str) -> Lock | None:
    """The versions that a build should stay at where it can: those of the current generation."""
    path = generation.folder / locking.NAME if generation else None
    lock = locking.read(path) if path and path.is_file() else None
    return lock if lock and lock.suite == suite else None
