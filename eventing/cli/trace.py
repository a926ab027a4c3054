"""`eventing trace`: where an event went, attempt by attempt, and why."""

import json
from typing import Annotated, Any, Literal

import typer

from eventing.cli.completion import complete_channels, complete_namespaces
from eventing.cli.terminal import DataDir, printable, qualified, say_unanswered
from eventing.errors import EventingError

__all__ = ["trace"]

_NOT_FOUND = 3


def trace(
    identity: Annotated[str, typer.Argument(metavar="RECEIPT|ID", help="Id of the event, or the receipt of its acceptance.")],
    *,
    channel: Annotated[
        str,
        typer.Option("--channel", "-c", metavar="[NAMESPACE/]NAME", help="Only this channel.", autocompletion=complete_channels),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the channel.", autocompletion=complete_namespaces)
    ] = "default",
    data: Annotated[bool, typer.Option("--data", help="The event's data, too.")] = False,
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="For people, or for programs.")] = "text",
    data_dir: DataDir = None,
) -> None:
    """Show the way of an event: who accepted it, each attempt at each subscription, and what was decided.

    An id may have been sent more than once: all that match are shown. Events that were dropped or dead-lettered are known after a
    restart, too. Exit code 3: nothing matches; then it is told what was refused lately.

    Example: eventing trace 1
    """
    from eventing.runtime.mesh_client import MeshClient

    wanted = qualified(channel, namespace)
    with MeshClient.find(data_dir) as mesh:
        document = mesh.trace(identity, channel=wanted, data=data)
        say_unanswered(document["unanswered"], len(mesh.endpoints.admin_urls))
    if any(match.get("kept") == "memory" for match in document["matches"]):
        document = _with_not_ready(document, data_dir)
    if output == "json":
        typer.echo(json.dumps(document, indent=2))
    else:
        from rich.console import Console

        from eventing.runtime.way import show

        show(document, identity, Console(highlight=False))
    if not document["matches"]:
        raise typer.Exit(_NOT_FOUND)


def _with_not_ready(document: dict[str, Any], data_dir: Any) -> dict[str, Any]:
    """Subscriptions that are not Ready are unknown to the data plane: the API server is asked for them."""
    import msgspec

    from eventing.journal.documents import Match, as_dict
    from eventing.runtime.api_client import ApiClient
    from eventing.runtime.why import with_not_ready

    try:
        with ApiClient.find(data_dir, timeout_s=5.0) as client:
            (kind,) = client.resolve("subscriptions.messaging.knative.dev")
            subscriptions = client.list(kind)["items"]
    except EventingError as error:  # what the data plane knows is worth showing without
        typer.echo(f"eventing: subscriptions that are not Ready are not shown: {printable(str(error))}", err=True)
        return document
    matches = [as_dict(with_not_ready(msgspec.convert(match, Match), subscriptions)) for match in document["matches"]]
    return {**document, "matches": matches}
