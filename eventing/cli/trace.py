"""`eventing trace`: where an event went, attempt by attempt, and why."""

import json
from contextlib import closing
from typing import Annotated, Literal
from urllib.parse import quote

import typer

from eventing.cli.running import connect, find, request
from eventing.cli.terminal import DataDir, printable
from eventing.errors import EventingError

__all__ = ["trace"]

_NOT_FOUND = 3


def trace(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the event, or the receipt of its acceptance.")],
    *,
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="For people, or for programs.")] = "text",
    data_dir: DataDir = None,
) -> None:
    """Show the way of an event: who accepted it, each attempt at each subscription, and what was decided.

    An id may have been sent more than once: all that match are shown. Exit code 3: nothing matches.

    Example: eventing trace 1
    """
    running = find(data_dir)
    with closing(connect(running.endpoints.metrics)) as connection:
        path = f"/trace/{quote(identity, safe='')}"
        answer = request(connection, "GET", path, headers={"Authorization": f"Bearer {running.token}"})
    if answer.status != 200:
        raise EventingError(f"the mesh answered {answer.status}: {printable(answer.body[:500].decode('utf-8', 'replace'))}")
    document = answer.json()
    if output == "json":
        typer.echo(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        from eventing.runtime.way import show

        show(document, identity, Console(highlight=False))
    if not document["matches"]:
        raise typer.Exit(_NOT_FOUND)
