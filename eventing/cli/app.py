"""The verbs put together, and how an error reaches a person."""

import os
import sys

import typer

from eventing import EventingError
from eventing.cli.apply import apply
from eventing.cli.controllers import controllers
from eventing.cli.delete import delete
from eventing.cli.describe import describe
from eventing.cli.get import get
from eventing.cli.send import send
from eventing.cli.tail import tail
from eventing.cli.trace import trace
from eventing.cli.up import up
from eventing.cli.version import version
from eventing.cli.why import why
from eventing.errors import ObjectNotFoundError
from eventing.observe.lines import lines_of

__all__ = ["app", "run"]

app = typer.Typer(
    name="eventing",
    help="An event broker and eventing mesh that speaks Knative's API.",
    epilog="Begin with: eventing up --quickstart",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (up, apply, get, describe, delete, send, trace, tail, why, controllers, version):
    app.command()(verb)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; return its exit code. Errors of the mesh become one line on standard error."""
    try:
        app(arguments, prog_name="eventing")
    except ObjectNotFoundError as error:
        typer.echo(f"eventing: {lines_of(str(error))}", err=True)
        return 3
    except EventingError as error:
        typer.echo(f"eventing: {lines_of(str(error))}", err=True)
        return 1
    except BrokenPipeError:  # `eventing trace … | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
