"""What a build shows while it runs."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy

from kestrelpi.cli.build_watch import Events, Lines, LiveView, short
from kestrelpi.cli.context import Context
from kestrelpi.images.chain import Step
from kestrelpi.images.manifest import StepRecord
from kestrelpi.paths import Paths


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Paths(tmp_path), tmp_path / "kestrelpi.yaml", json=False, verbose=False)


STEP = Step("configure", "50-x", "script", "/etc/kestrelpi", {}, "key", cached=False, stale="script")


def record(name: str, cached: bool = False) -> StepRecord:
    stale = "" if cached else "script, KESTRELPI_TIMEZONE"
    return StepRecord("configure", name, "built-in", "", (), "key", cached, stale, 1.25, "")


def test_a_line_a_step(ctx: Context, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(ctx)
    lines.start(STEP)
    lines.line("some output")
    lines.done(record("20-timezone", cached=True))
    lines.done(record("50-x"))
    said = capsys.readouterr().err.splitlines()
    assert [line.split() for line in said] == [
        ["configure", "20-timezone", "kept"],
        ["configure", "50-x", "1.2", "s", "script,", "KESTRELPI_TIMEZONE"],
    ]


def test_events_are_json_objects_a_line_each(ctx: Context, capsys: pytest.CaptureFixture[str]) -> None:
    events = Events(ctx)
    events.work("Looking")
    events.start(STEP)
    events.line('a "line"')
    events.done(record("50-x"))
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one["event"] for one in said] == ["work", "start", "line", "done"]
    assert said[0]["what"] == "Looking"
    assert said[1]["stale"] == "script"
    assert said[2]["text"] == 'a "line"'
    assert (said[3]["name"], said[3]["seconds"], said[3]["cached"]) == ("50-x", 1.25, False)
    assert all(one["at"] >= 0 for one in said)


def test_the_live_display_shows_the_running_step(ctx: Context) -> None:
    console = Console(width=120, record=True, force_terminal=True)
    view = LiveView(ctx, console)
    view.steps = 3
    view.start(STEP)
    view.line("Unpacking [bold]something[/bold] …" + "x" * 200)
    with console.capture() as captured:
        console.print(view)
    shown = captured.get()
    assert "0/3" in shown
    assert "configure 50-x" in shown
    assert "(script)" in shown
    assert "Unpacking [bold]something[/bold]" in shown, "output is no markup"
    assert len(shown.rstrip().splitlines()) == 2, "one line of output, cut off"
    for _ in range(3):
        view.done(record("50-x"))
    with console.capture() as captured:
        console.print(view)
    assert captured.get().strip() == ""


def test_on_a_narrow_terminal_the_reason_makes_way(ctx: Context) -> None:
    console = Console(width=80, record=True, force_terminal=True)
    view = LiveView(ctx, console)
    view.steps = 15
    view.start(replace(STEP, name="20-timezone", stale="KESTRELPI_TIMEZONE"))
    with console.capture() as captured:
        console.print(view)
    head = captured.get().splitlines()[0]
    assert "configure 20-timezone" in head
    assert "(KEST" in head
    assert "in all" in head


def test_messages_go_above_a_live_display_and_not_past_it(ctx: Context) -> None:
    terminal, console = io.BytesIO(), Console(file=io.StringIO())
    live = FileProxy(console, io.TextIOWrapper(terminal, write_through=True))  # what rich puts in place of sys.stderr
    with redirect_stderr(live), console.capture() as captured:
        ctx.say("a step is done")
    assert captured.get() == "a step is done\n"
    assert terminal.getvalue() == b""


def test_what_takes_long_before_a_build_is_shown_with_its_last_line(ctx: Context) -> None:
    console = Console(width=120, record=True, force_terminal=True)
    view = LiveView(ctx, console)
    with console.capture() as captured:
        console.print(view)
    assert captured.get().strip() == ""
    view.work("Working out what would change")
    view.line("Reading package lists...")
    with console.capture() as captured:
        console.print(view)
    assert "Working out what would change" in captured.get()
    assert "Reading package lists..." in captured.get()


def test_a_reason_is_cut_to_a_line() -> None:
    assert short("x" * 100) == "x" * 60 + "…"
    assert short("script") == "script"
