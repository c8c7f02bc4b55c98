"""How flaws of a generation and the result of its test are shown."""

from __future__ import annotations

from collections.abc import Sequence

import click

from kestrelpi.cli.context import Context
from kestrelpi.cli.table import COLOURS, print_table
from kestrelpi.finding import Severity
from kestrelpi.images.store import Generation
from kestrelpi.releasing.flaw import Flaw
from kestrelpi.releasing.outcome import CheckOutcome, Outcome


def print_flaw(ctx: Context, flaw: Flaw) -> None:
    """What is wrong, where, and what to do, on standard error."""
    head = click.style(flaw.severity.word.upper(), fg=COLOURS[flaw.severity], bold=True)
    click.echo(f"{head} {flaw.check}: {flaw.what}\n  where  {flaw.where}\n  fix    {ctx.as_called(flaw.fix)}", err=True)


def show_flaws(ctx: Context, generation: Generation, flaws: Sequence[Flaw]) -> bool:
    """What the checks found; True if it refuses the generation."""
    refused = any(flaw.severity is Severity.ERROR for flaw in flaws)
    if ctx.json:
        found = [flaw.document() for flaw in flaws]
        ctx.document({"image": generation.image, "id": generation.id, "refused": refused, "flaws": found})
        return refused
    for flaw in flaws:
        print_flaw(ctx, flaw)
    click.echo(f"{generation.image} {generation.id}: {f'{len(flaws)} flaws' if flaws else 'no flaw'}")
    return refused


def show_outcome(ctx: Context, generation: Generation, outcome: Outcome) -> None:
    """The table of a test."""
    if ctx.json:
        ctx.document({"image": generation.image, "id": generation.id, **outcome.document()})
        return
    if outcome.stages:
        print_table([one.upper() for one in outcome.stages], [[f"{at:.1f}" for at in outcome.stages.values()]])
    print_table(
        ("CHECK", "", "SECONDS", "DETAIL"),
        [(one.name, "ok" if one.ok else "FAILED", f"{one.seconds:.1f}", first_line(one)) for one in outcome.checks],
    )
    for one in outcome.checks:
        if not one.ok and "\n" in one.detail:
            click.echo(f"{one.name}:\n" + "\n".join(f"    {line}" for line in one.detail.splitlines()))
    if outcome.log and not outcome.passed:
        click.echo(f"the console and the services: {outcome.log}")
    verdict = "passed" if outcome.passed else "FAILED"
    click.echo(f"{generation.image} {generation.id}: {verdict} on an emulated Pi {outcome.model}")


def first_line(check: CheckOutcome) -> str:
    """What stands in the table of the check's detail."""
    first, _, more = check.detail.partition("\n")
    return f"{first} …" if more else first
