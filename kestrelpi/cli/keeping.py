"""What was changed by hand in a shell is shown, and kept as a script if the user wants that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kestrelpi.cli.context import Context
from kestrelpi.errors import UserError
from kestrelpi.files import write_whole
from kestrelpi.images import by_hand
from kestrelpi.images.by_hand import ByHand
from kestrelpi.images.scripts import NAME

PROPOSED = "by-hand"
DONE = {
    "gone": "removed",
    "folder": "folder",
    "link": "link",
    "text": "written",
    "bytes": "not kept",
    "mode": "rights",
}
"""What is said of each kind of change."""
LISTED = 40
"""So many changes are listed."""


def folder(ctx: Context, image: str) -> Path:
    return ctx.paths.etc / "images" / image / "configure.d"


def check_name(ctx: Context, image: str, name: str) -> None:
    """Raise UserError when a script can't be called so, or is there already."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a script", fix="call it NN-what, such as 80-by-hand")
    if (folder(ctx, image) / name).exists():
        raise UserError(
            "there is such a script already", where=str(folder(ctx, image) / name), fix="choose another name"
        )


def offer(ctx: Context, image: str, found: Sequence[ByHand], save: str | None) -> None:
    """Say what was changed; with `save`, or if a user on a terminal wants it, write the script."""
    path = folder(ctx, image) / (save or proposed(folder(ctx, image)))
    useful = by_hand.worth_a_script(found)
    if useful and not save:
        ctx.say(summary(found) if _asked() and not ctx.verbose else by_hand.script(found))
    if by_hand.installed(found):
        ctx.say("Packages changed too; their place is images.<name>.packages or a list: they are not in the script.")
    keep = useful and (bool(save) or (_asked() and click.confirm(f"Keep this as {path}?", default=False, err=True)))
    if keep:
        write_whole(path, by_hand.script(found), 0o700 if by_hand.private(found) else 0o755)
    if ctx.json:
        changes = [{"kind": one.kind, "path": f"/{one.name}"} for one in found]
        ctx.document({"image": image, "changes": changes, "script": str(path) if keep else ""})
    elif keep:
        click.echo(f"{path}: in force with the next kestrelpi images build {image}")
    elif useful:
        ctx.say("Thrown away.")


def summary(found: Sequence[ByHand]) -> str:
    """A line for each change that the script would make."""
    shown = [one for one in found if not one.name.startswith(by_hand.PACKAGES)]
    lines = [f"  {DONE[one.kind]:<8} /{one.name}" for one in shown[:LISTED]]
    if len(shown) > LISTED:
        lines.append(f"  and {len(shown) - LISTED} more")
    if any(one.kind == "bytes" for one in shown):
        lines.append("What is no short text is not kept in a script: its place is /etc/kestrelpi/overlays/node/")
    return "\n".join(lines)


def proposed(where: Path) -> str:
    """80-by-hand, or the next number that is free."""
    return next(name for number in range(80, 100) if not (where / (name := f"{number}-{PROPOSED}")).exists())


def _asked() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
