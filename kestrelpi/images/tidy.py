"""Cleaning up: layers that no generation uses any more, and old generations that nobody boots."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from kestrelpi.files import locked
from kestrelpi.images import kept, squashfs
from kestrelpi.images.layers import Layers, remove_tree
from kestrelpi.images.preflight import disk_errors
from kestrelpi.images.store import Generation, Store
from kestrelpi.paths import Paths

Holding = Callable[[], AbstractContextManager[Collection[tuple[str, str]]]]
"""Gives the generations (image, id) that nodes need, and lets no node come to need another until it is left."""


@dataclass(frozen=True)
class Rubbish:
    """What can go."""

    generations: tuple[Generation, ...]
    layers: tuple[str, ...]


def find(paths: Paths, keep: int, used: Collection[tuple[str, str]] = ()) -> Rubbish:
    """What no current generation, none of the newest `keep` of each image and none in `used` (image, id) needs."""
    store = Store(paths)
    kept: list[Generation] = []
    doomed: list[Generation] = []
    for image in store.images():
        generations = store.generations(image)
        linked = {one.id for one in (store.current(image), store.canary(image)) if one}
        newest = {one.id for one in generations[-keep:]} if keep else set()
        for one in generations:
            needed = one.id in newest or (image, one.id) in used or one.id in linked
            (kept if needed else doomed).append(one)
    needed_keys = {key for one in kept for key in one.manifest.keys}
    layers = Layers(paths.cache / "layers")
    return Rubbish(tuple(doomed), tuple(key for key in layers.sealed() if key not in needed_keys))


def collect(paths: Paths, keep: int, holding: Holding = lambda: nullcontext(())) -> Rubbish:
    """Remove what `find` finds, and what killed builds left."""
    with locked(paths.state / "build.lock", "the image builder", wait=1.0), disk_errors(paths.state):
        store, layers = Store(paths), Layers(paths.cache / "layers")
        store.clean()
        layers.clean()
        with holding() as used:  # for the renames only: registering must not wait until everything is removed
            rubbish = find(paths, keep, used)
            withdrawn = [store.withdraw(generation) for generation in rubbish.generations]
        for folder in withdrawn:
            remove_tree(folder)
        for key in rubbish.layers:
            layers.remove(key)
        for path in (*squashfs.unused(layers), *kept.unused(paths.cache / "packed")):
            path.unlink()
    return rubbish
