"""Who is told how a build gets on."""

from __future__ import annotations

from typing import Protocol

from kestrelpi.images.chain import Step
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.plan import BuildPlan


class Watcher(Protocol):
    """Is told how a build gets on."""

    def begin(self, plan: BuildPlan) -> None: ...
    def start(self, step: Step) -> None: ...
    def line(self, text: str) -> None: ...
    def done(self, record: StepRecord) -> None: ...


class Silent:
    """A watcher that says nothing."""

    def begin(self, plan: BuildPlan) -> None: ...
    def start(self, step: Step) -> None: ...
    def line(self, text: str) -> None: ...
    def done(self, record: StepRecord) -> None: ...
