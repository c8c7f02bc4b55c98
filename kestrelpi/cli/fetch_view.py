"""How `kestrelpi modules fetch` shows what it does: a bar on a terminal, a line for each file elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kestrelpi.cli.context import Context
from kestrelpi.cli.table import print_table
from kestrelpi.errors import UserError
from kestrelpi.images.fetch import Progress, Source, bring
from kestrelpi.images.fetched import Fetched, verify

MEGA = 1e6


def show_wanted(ctx: Context, wanted: Sequence[Fetched]) -> None:
    """What would be fetched, and the state of each file."""
    states = [state(one) for one in wanted]
    if ctx.json:
        ctx.document([document(one, there) for one, there in zip(wanted, states, strict=True)])
        return
    rows = [
        (one.module, one.name, one.version, size(one.size), there, one.sha256 or f"not known: {one.lookup}", one.url)
        for one, there in zip(wanted, states, strict=True)
    ]
    print_table(("MODULE", "FILE", "VERSION", "SIZE", "STATE", "SHA-256", "FROM"), rows)


def state(one: Fetched) -> str:
    """`fetched`, `wanted`, `spoilt` (there, but not with its SHA-256), or `unknown` (nobody has said what that is)."""
    if not one.sha256:
        return "unknown"
    if not one.present:
        return "wanted"
    try:
        verify(one)
    except UserError:
        return "spoilt"
    return "fetched"


def bring_all(ctx: Context, wanted: Sequence[Fetched], source: Source) -> None:
    """Bring each file, with a line for it."""
    done = []
    for one in wanted:
        one.required_sha256()  # before the first byte: what the user must say first
    for one in wanted:
        began = time.monotonic()
        with progress(ctx, one) as tell:
            new = bring(one, source, tell)
        seconds = time.monotonic() - began
        how = f"{size(one.path.stat().st_size)} in {seconds:.1f} s" if new else "there already"
        ctx.say(f"  {one.title:<40} {how}; SHA-256 {one.sha256[:16]}… is right")
        done.append({**document(one, "fetched"), "new": new, "seconds": round(seconds, 2)})
    if ctx.json:
        ctx.document(done)


@contextmanager
def progress(ctx: Context, one: Fetched) -> Iterator[Progress]:
    """What is told how far a transfer is."""
    if not sys.stderr.isatty() or ctx.json:
        yield lambda *_: None
        return
    from rich.console import Console  # slow to import
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(one.title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(one.title, total=one.size or None)
        yield lambda _, done, whole: bar.update(task, completed=done, total=whole or None)


def size(count: int) -> str:
    return f"{count / MEGA:.1f} MB" if count else ""


def document(one: Fetched, there: str) -> dict[str, object]:
    """For --json."""
    return {
        "module": one.module,
        "name": one.name,
        "version": one.version,
        "url": one.url,
        "file": one.file,
        "sha256": one.sha256,
        "size": one.size,
        "path": str(one.path),
        "state": there,
    }
