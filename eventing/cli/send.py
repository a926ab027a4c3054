"""`eventing send`: one event, or many, to a channel of the running mesh."""

import json
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from eventing.cli.completion import complete_channels, complete_namespaces
from eventing.cli.terminal import DataDir, printable
from eventing.errors import EventingError, InvalidEventError

__all__ = ["send"]


def send(
    *,
    channel: Annotated[str, typer.Option("--channel", "-c", help="Name of the channel.", autocompletion=complete_channels)],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Its namespace.", autocompletion=complete_namespaces)
    ] = "default",
    event_type: Annotated[str, typer.Option("--type", "-t", help="Attribute type.")] = "com.example.event",
    source: Annotated[str, typer.Option(help="Attribute source.")] = "/eventing/send",
    event_id: Annotated[str | None, typer.Option("--id", help="Attribute id.", show_default="a new one")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="TEXT|@FILE|-", help="The data.")] = None,
    content_type: Annotated[
        str | None, typer.Option(help="Content type of the data.", show_default="application/json where it is JSON")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="Further attribute, repeatable.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many; with --id, a number is put behind it.")] = 1,
    data_dir: DataDir = None,
) -> None:
    """Send an event to a channel and print the receipt of its acceptance.

    Example: eventing send --channel orders --type com.example.order --data '{"n": 1}'
    """
    from eventing.event import Event, attribute_faults
    from eventing.runtime.mesh_client import MeshClient

    payload = _payload(data)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    attributes = {"specversion": "1.0", "type": event_type, "source": source, "time": now}
    attributes |= dict(map(_pair, attribute or []))
    if kind := content_type or _content_type(payload):
        attributes["datacontenttype"] = kind
    began = time.monotonic()
    with MeshClient.find(data_dir) as mesh:
        for number in range(1, count + 1):
            attributes["id"] = str(uuid.uuid4()) if event_id is None else event_id if count == 1 else f"{event_id}-{number}"
            if faults := attribute_faults(attributes):
                raise InvalidEventError(faults)
            answer = mesh.send(namespace, channel, Event(attributes, payload))
            if not answer.accepted:
                done = f" ({number - 1} of {count} were accepted)" if count > 1 else ""
                raise EventingError(f"{namespace}/{channel} refused the event: {answer.problem}{done}")
            if count == 1:
                identity = printable(attributes["id"])
                typer.echo(f"accepted by {namespace}/{channel}: id {identity}, receipt {printable(answer.receipt)}")
    if count > 1:
        typer.echo(f"{count} events accepted by {namespace}/{channel} in {time.monotonic() - began:.2f} s")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--attribute")
    return name.lower(), value


def _payload(data: str | None) -> bytes:
    if data is None:
        return b""
    if data in {"-", "@-"}:
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise EventingError(f"the data cannot be read from {data[1:]}: {error.strerror}") from error


def _content_type(data: bytes) -> str | None:
    """What the data looks like: JSON, text, or neither."""
    if not data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "text/plain; charset=utf-8"
    return "application/json"
