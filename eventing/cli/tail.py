"""`eventing tail`: what the mesh does, as it does it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from eventing.cli.completion import complete_channels, complete_namespaces, complete_subscriptions
from eventing.cli.terminal import DataDir, printable, qualified

__all__ = ["tail"]

_ANSWER_SHOWN: Final = 300
_INTERRUPTED: Final = 130  # as the shell has it for SIGINT, and kubectl logs -f


def tail(
    *,
    channel: Annotated[
        str,
        typer.Option("--channel", "-c", metavar="[NAMESPACE/]NAME", help="Only this channel.", autocompletion=complete_channels),
    ] = "",
    subscription: Annotated[
        str,
        typer.Option(
            "--subscription",
            "-s",
            metavar="[NAMESPACE/]NAME",
            help="Only attempts at this Subscription.",
            autocompletion=complete_subscriptions,
        ),
    ] = "",
    event_type: Annotated[str, typer.Option("--type", "-t", help="Only events of this type.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only what does not succeed.")] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of the names.", autocompletion=complete_namespaces)
    ] = "default",
    output: Annotated[
        Literal["compact", "json"], typer.Option("--output", "-o", help="A line for people, or an object for programs.")
    ] = "compact",
    data_dir: DataDir = None,
) -> None:
    """Follow what happens: acceptances, attempts, refusals, from now on, until Ctrl-C (exit code 130).

    A terminal that is slower than the mesh misses some; how many is said on standard error.

    Example: eventing tail --failed
    """
    wanted = {
        "channel": qualified(channel, namespace),
        "subscription": qualified(subscription, namespace),
        "type": event_type,
        "failed": "true" if failed else "",
    }
    try:
        _follow(data_dir, wanted, json_lines=output == "json")
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _follow(data_dir: Path | None, wanted: dict[str, str], *, json_lines: bool) -> None:
    from rich.console import Console

    from eventing.runtime.feeds import Feeds
    from eventing.runtime.mesh_client import MeshClient

    console = Console(highlight=False)
    for batch in Feeds(lambda: MeshClient.find(data_dir), wanted):
        for note in batch.notes:
            _say(note)
        for entry in batch.entries:
            if json_lines:
                sys.stdout.write(json.dumps(entry) + "\n")
            else:
                _print(entry, console)
        sys.stdout.flush()


def _say(text: str) -> None:
    typer.echo(f"eventing: {text}", err=True)


def _print(entry: Mapping[str, Any], console: Any) -> None:
    """One line: when, what, how, where, which event, and the rest."""
    from rich.text import Text

    from eventing.runtime.way import STATES, answered, line, local_time

    def safe(value: object) -> str:
        return printable(str(value))

    attempt = entry["attempt"]
    what = attempt["outcome"] if attempt else entry["kind"]
    status = str(entry["status"] or "") if entry["kind"] != "accepted" else ""
    took = f"{attempt['duration_ms']:.1f} ms" if attempt and attempt["number"] else ""
    text = Text.assemble(
        (f"{safe(what):13}", STATES.get(what, "")),
        f" {status:>3} {took:>10}  ",
        safe(entry["subscription"] or entry["channel"]),
    )
    if entry["id"]:
        text.append(f"  {safe(entry['type'])}" if entry["type"] else "")
        text.append(f"  id {safe(entry['id'])}", "bold")
    if entry["kind"] == "accepted" and entry["data"]:
        text.append("  " + " ".join(safe(" ".join(entry["data"]["text"].split())).split())[:200], "dim")
    elif attempt and what != "delivered":
        text.append(f"  {safe(attempt['decision'])}")
        if answer := answered(attempt):
            text.append(f"  {answer[:_ANSWER_SHOWN]}", "dim")
    elif attempt and attempt["number"] > 1:
        text.append(f"  at attempt {attempt['number']}", "dim")
    elif entry["reason"]:
        text.append(f"  {safe(entry['reason'])}")
    line(console, text, before=f"{local_time(entry['time'])}  ")
