"""`eventing trace`: where an event went, attempt by attempt, and why."""

import json
from typing import Annotated, Literal

import typer

from eventing.cli.terminal import DataDir

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
    from eventing.runtime.mesh_client import MeshClient

    with MeshClient.find(data_dir) as mesh:
        document = mesh.trace(identity)
    if output == "json":
        typer.echo(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        from eventing.runtime.way import show

        show(document, identity, Console(highlight=False))
    if not document["matches"]:
        raise typer.Exit(_NOT_FOUND)
