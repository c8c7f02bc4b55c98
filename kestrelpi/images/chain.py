"""The steps of a build as they follow each other: every key has the key before it among its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kestrelpi.images import added, forced, keys, scripts
from kestrelpi.images import lock as locking
from kestrelpi.images.layers import LayerInfo, Layers
from kestrelpi.images.lock import Lock
from kestrelpi.images.store import Store
from kestrelpi.paths import Paths

FORCE = "--force"
"""The field of a key that says when the step was forced to run anew."""
COMMON = ("recipe", "suite", "arch")
"""The fields that steps which add packages share with the first."""

Kind = Literal["bootstrap", "packages", "script", "overlay"]


@dataclass(frozen=True)
class Step:
    """One step of a build, whose result is one layer."""

    phase: str
    name: str
    kind: Kind
    origin: str
    fields: Mapping[str, str]
    key: str
    cached: bool
    stale: str = ""
    """Why no kept layer can be used: which fields differ from the last build's; `new` when there was none."""
    script: scripts.Script | None = None
    path: Path | None = None
    overrides: tuple[Path, ...] = ()
    added: tuple[str, ...] = ()
    """Of kind packages: what is installed over the packages of an earlier step; empty: all that is wanted."""


class Chain:
    """The steps so far."""

    def __init__(self, paths: Paths, image: str, lock: Lock | None, *, whole: bool) -> None:
        self.lock = lock
        self.whole = whole or lock is not None
        self.layers = Layers(paths.cache / "layers")
        self.current = Store(paths).current(image)
        self.forced = forced.read(paths, image)
        self.steps: list[Step] = []
        infos = [self.layers.info(key) for key in (self.current.manifest.keys if self.current else ())]
        self._made_of = [info for info in infos if info]
        self._before = {(info.phase, info.name): info.fields for info in self._made_of}

    def add(self, phase: str, name: str, kind: Kind, fields: Mapping[str, str]) -> None:
        """A step of kestrelpi's own."""
        self._add(Step(phase, name, kind, "kestrelpi", fields, "", cached=False))

    def add_script(self, script: scripts.Script) -> None:
        """A step that runs a script."""
        source = script.source
        self._add(
            Step(
                *(script.phase, script.name, "script", source.origin, script.fields, ""),
                cached=False,
                script=script,
                path=source.path,
                overrides=source.overrides,
            )
        )

    def add_packages(self, fields: Mapping[str, str], lists: Sequence[Path]) -> None:
        """The packages phase: one step, or the chain of steps that has installed the same, or most of it."""
        step = Step(added.PHASE, added.step_name(1), "packages", "kestrelpi", fields, "", False, overrides=tuple(lists))
        single = self._fields(step)
        links = self._current_links()
        if not self.whole and not self.layers.has(keys.digest(single)):
            found = added.find(single, links, lambda: self._kept_links(single[keys.PREVIOUS]))
            if found:
                self._add_links(found, single, lists)
                return
        self._add(step, added.asked(links) if len(links) > 1 else None)

    def _add_links(self, found: added.Found, single: Mapping[str, str], lists: Sequence[Path]) -> None:
        for number, info in enumerate(found.links):
            self.steps.append(
                Step(
                    *(info.phase, info.name, "packages", "kestrelpi", info.fields, info.key),
                    cached=True,
                    overrides=() if number else tuple(lists),
                    added=added.names(info.fields) if number else (),
                )
            )
        if found.names:
            fields = {name: single[name] for name in (*COMMON, *map(added.field, found.names))}
            name = added.step_name(len(found.links) + 1)
            before = added.asked(self._current_links())
            step = Step(added.PHASE, name, "packages", "kestrelpi", fields, "", False, added=found.names)
            self._add(step, before, single)

    def _add(self, step: Step, before: Mapping[str, str] | None = None, now: Mapping[str, str] | None = None) -> None:
        """Add a step with its key; `before` and `now`: the fields that tell why it runs, if not its own."""
        fields = self._fields(step)
        key = keys.digest(fields)
        cached = self.layers.has(key)
        before = before or self._before.get((step.phase, step.name))
        stale = "" if cached else self._why(key, before, now or fields)
        self.steps.append(replace(step, fields=fields, key=key, cached=cached, stale=stale))

    def _fields(self, step: Step) -> dict[str, str]:
        """All fields of the key of a step that comes next."""
        whole = {**step.fields, "phase": step.phase, "name": step.name}
        if self.steps:
            whole[keys.PREVIOUS] = self.steps[-1].key
        if step.phase in self.forced and not any(one.phase == step.phase for one in self.steps):
            whole[FORCE] = self.forced[step.phase]
        return whole | self._locked(step.phase, step.name, whole)

    def _locked(self, phase: str, name: str, fields: Mapping[str, str]) -> dict[str, str]:
        """The field that makes another key of a step when a lock file asks for what the kept layer doesn't have.

        Without --locked: that of the layer in use, if nothing else about the step changed since.
        """
        key = keys.digest(fields)
        if self.lock is None:
            before = self._before.get((phase, name), {})
            used = {locking.FIELD: before[locking.FIELD]} if locking.FIELD in before else {}
            return used if {**fields, **used} == before and not self.layers.has(key) else {}
        wanted = self.lock.sections.get(phase)
        there = locking.read_section(self.layers.folder / key) if wanted else None
        return {locking.FIELD: wanted.digest} if wanted and (there is None or there.digest != wanted.digest) else {}

    def _why(self, key: str, before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
        if self.current and key in self.current.manifest.keys:
            return "the layer is gone"
        return "new" if before is None else keys.difference(before, now) or keys.PREVIOUS

    def _current_links(self) -> added.Links:
        """The packages steps of the current generation, up to one whose layer is gone."""
        found: list[LayerInfo] = []
        for info in self._made_of:
            if info.phase == added.PHASE and (not found or info.fields[keys.PREVIOUS] == found[-1].key):
                found.append(info)
        return tuple(found)

    def _kept_links(self, below: str) -> list[added.Links]:
        """All chains of packages steps over the layer `below` that are kept."""
        infos = [self.layers.info(key) for key in self.layers.sealed()]
        return added.chains([info for info in infos if info], below)
