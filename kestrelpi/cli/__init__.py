"""The command line: one module a noun, imported only when its noun is used."""

from __future__ import annotations

import errno
import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import click

from kestrelpi import __version__
from kestrelpi.cli.context import Context
from kestrelpi.cli.nouns import NOUNS
from kestrelpi.errors import ExitStatus, UserError
from kestrelpi.paths import Paths

SOME_OBJECTS = 50_000
"""Objects that are made before Python looks for garbage: `nodes list` makes a million for 10,000, none in vain."""
NOT_A_BUG = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the machine refuses: not root, or a disk that is full or read-only."""


class Nouns(click.Group):
    """Imports `kestrelpi.cli.NOUN` when NOUN is used, so that no command pays for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = importlib.import_module(f"kestrelpi.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            error.fix = ctx.obj.as_called(error.fix)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    metavar="DIR",
    help="The root that every path hangs below.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="The configuration; default DIR/etc/kestrelpi/kestrelpi.yaml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.version_option(__version__, prog_name="kestrelpi")
@click.pass_context
def cli(ctx: click.Context, root: Path, config_path: Path | None, as_json: bool, verbose: bool) -> None:
    """Turn diskless Raspberry Pis into an HPC cluster."""
    paths = Paths(root.resolve())
    ctx.obj = Context(paths, config_path or paths.config, as_json, verbose)


def main() -> None:
    """The program: the one place where a user's mistake becomes a message and an exit status."""
    gc.set_threshold(SOME_OBJECTS)
    try:
        cli.main(prog_name="kestrelpi", standalone_mode=False)
    except UserError as error:
        click.echo(f"kestrelpi: {error}", err=True)
        sys.exit(error.status)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno not in NOT_A_BUG:
            raise
        fix = "run it as root" if isinstance(error, PermissionError) else "mend that and try again"
        click.echo(f"kestrelpi: {UserError(str(error.strerror), where=str(error.filename or ''), fix=fix)}", err=True)
        sys.exit(ExitStatus.FAILED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("kestrelpi: interrupted", err=True)
        sys.exit(130)
