"""How a build is followed: live on a terminal, a line a step elsewhere, a JSON object an event with --json."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kestrelpi.cli.context import Context
from kestrelpi.images.chain import Step
from kestrelpi.images.manifest import StepRecord
from kestrelpi.images.plan import BuildPlan

REFRESH = 4
"""Times a second that the live display is drawn, so that its seconds run while a step says nothing."""


class Lines:
    """A watcher that prints a line when a step is done."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.began = time.monotonic()
        self.records: list[StepRecord] = []
        self.changed = True

    def work(self, what: str) -> None:
        """Something that takes a while begins, before any build."""
        self.ctx.say(f"{what} …")

    def begin(self, plan: BuildPlan) -> None:
        self._forget(plan)
        stale = sum(not step.cached for step in plan.steps)
        if self.changed:
            self.ctx.say(
                f"{plan.image}: {plan.suite} from {plan.mirror.uri}, {stale} of {len(plan.steps)} steps to run"
            )

    def _forget(self, plan: BuildPlan) -> None:
        """A build may begin again by another plan."""
        self.records, self.changed = [], not plan.up_to_date

    def start(self, step: Step) -> None:
        if not step.cached and self.ctx.verbose:
            self.ctx.say(f"  {step.phase} {step.name} … ({step.stale})")

    def line(self, text: str) -> None:
        if self.ctx.verbose:
            self.ctx.say(f"    {text}")

    def done(self, record: StepRecord) -> None:
        self.records.append(record)
        how = "kept" if record.cached else f"{record.seconds:.1f} s"
        self.ctx.say(f"  {record.phase:<12} {record.name:<24} {how:>8}  {short(record.stale)}".rstrip())


class LiveView(Lines):
    """The same, with a bar, the running step, its seconds, why it runs, and its last line of output below."""

    def __init__(self, ctx: Context, console: Console) -> None:
        super().__init__(ctx)
        self.console = console
        self.steps = self.finished = 0
        self.title = self.why = self.last = ""
        self.step_began = time.monotonic()

    def work(self, what: str) -> None:
        self.title, self.step_began = what, time.monotonic()

    def begin(self, plan: BuildPlan) -> None:
        super().begin(plan)
        self.finished = 0
        self.steps = len(plan.steps) + 1  # the boot files come last

    def start(self, step: Step) -> None:
        self.title, self.why, self.last = f"{step.phase} {step.name}", step.stale, ""
        self.step_began = time.monotonic()

    def line(self, text: str) -> None:
        self.last = text

    def done(self, record: StepRecord) -> None:
        super().done(record)
        self.finished += 1
        self.title, self.why, self.last, self.step_began = "boot files", "", "", time.monotonic()

    def __rich__(self) -> RenderableType:
        """What is drawn below the lines of the steps that are done."""
        if not self.title or 0 < self.steps <= self.finished:
            return Text("")
        now = time.monotonic()
        head = Table.grid(padding=(0, 2))
        for word in ("bar", "count", "title", "seconds", "why", "all") if self.steps else ("title", "seconds"):
            head.add_column(no_wrap=word != "why")  # on a narrow terminal the reason makes way
        running = (Text(self.title, style="bold"), Text(f"{now - self.step_began:.0f} s"))
        if self.steps:
            head.add_row(
                ProgressBar(total=self.steps, completed=self.finished, width=20),
                Text(f"{self.finished}/{self.steps}"),
                *running,
                Text(f"({short(self.why)})" if self.why else "", style="dim", no_wrap=True, overflow="ellipsis"),
                Text(f"{now - self.began:.0f} s in all", style="dim"),
            )
        else:
            head.add_row(*running)
        return Group(head, Text(self.last, style="dim", no_wrap=True, overflow="ellipsis"))


class Events(Lines):
    """Each thing that happens as a JSON object in a line of standard error; the document comes at the end."""

    def work(self, what: str) -> None:
        self._say("work", what=what)

    def begin(self, plan: BuildPlan) -> None:
        self._forget(plan)
        steps = [{"phase": one.phase, "name": one.name, "cached": one.cached, "stale": one.stale} for one in plan.steps]
        self._say("begin", image=plan.image, suite=plan.suite, up_to_date=plan.up_to_date, steps=steps)

    def start(self, step: Step) -> None:
        self._say("start", phase=step.phase, name=step.name, cached=step.cached, stale=step.stale)

    def line(self, text: str) -> None:
        self._say("line", text=text)

    def done(self, record: StepRecord) -> None:
        self.records.append(record)
        self._say("done", **asdict(record))

    def _say(self, event: str, **more: object) -> None:
        self.ctx.say(json.dumps({"event": event, "at": round(time.monotonic() - self.began, 3), **more}))


@contextmanager
def watcher(ctx: Context) -> Iterator[Lines]:
    """What fits the terminal and the options."""
    if ctx.json:
        yield Events(ctx)
    elif sys.stderr.isatty() and not ctx.verbose:
        console = Console(stderr=True)
        view = LiveView(ctx, console)
        with Live(view, console=console, refresh_per_second=REFRESH, transient=True, redirect_stdout=False):
            yield view
    else:
        yield Lines(ctx)


def short(text: str, width: int = 60) -> str:
    """One line of a reason that may name many fields."""
    return text if len(text) <= width else f"{text[:width]}…"
