"""`eventing send`: one event, or many, to a channel of the running mesh."""

import datetime
import json
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from eventing.cli.running import Answer, connect, find, request
from eventing.cli.terminal import DataDir, printable
from eventing.errors import EventingError

__all__ = ["send"]


def send(
    *,
    channel: Annotated[str, typer.Option("--channel", "-c", help="Name of the channel.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
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
    payload = _payload(data)
    attributes = {"specversion": "1.0", "type": event_type, "source": source} | dict(map(_pair, attribute or []))
    kind = content_type or _content_type(payload)
    if kind:
        attributes["datacontenttype"] = kind
    attributes.setdefault(
        "time", datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    running = find(data_dir)
    path = f"/{quote(namespace, safe='')}/{quote(channel, safe='')}"
    began = time.monotonic()
    with closing(connect(running.endpoints.ingress)) as connection:
        for number in range(1, count + 1):
            identity = str(uuid.uuid4()) if event_id is None else event_id if count == 1 else f"{event_id}-{number}"
            answer = request(
                connection, "POST", path, body=payload, headers=_headers({**attributes, "id": identity}, payload)
            )
            if not 200 <= answer.status < 300:
                done = f" ({number - 1} of {count} were accepted)" if count > 1 else ""
                raise EventingError(f"{namespace}/{channel} refused the event: {_problem(answer)}{done}")
            if count == 1:
                receipt = printable(answer.headers.get("Eventing-Receipt", ""))
                typer.echo(f"accepted by {namespace}/{channel}: id {printable(identity)}, receipt {receipt}")
    if count > 1:
        typer.echo(f"{count} events accepted by {namespace}/{channel} in {time.monotonic() - began:.2f} s")


def _headers(attributes: dict[str, str], data: bytes) -> dict[str, str]:
    """The event in binary mode. Raises InvalidEventError, which names every fault."""
    from eventing.bindings.http import binary_head
    from eventing.event import Event, check_attributes

    check_attributes(attributes)
    lines = binary_head(Event(attributes, data)).decode("ascii").split("\r\n")
    return dict(line.split(": ", 1) for line in lines if line)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--attribute")
    return name.lower(), value


def _payload(data: str | None) -> bytes:
    if data is None:
        return b""
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return sys.stdin.buffer.read() if data == "@-" else Path(data[1:]).read_bytes()
    except OSError as error:
        raise EventingError(f"the data cannot be read from {data[1:]}: {error.strerror}") from error


def _content_type(data: bytes) -> str | None:
    if not data:
        return None
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        pass
    else:
        return "application/json"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"


def _problem(answer: Answer) -> str:
    """The reason in the answer: `detail` of a problem document (RFC 9457) or its text."""
    text = answer.body[:2000].decode("utf-8", "replace").strip()
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        problem = None
    if isinstance(problem, dict):
        text = str(problem.get("detail") or problem.get("title") or problem.get("error") or text)
    retry_after = answer.headers.get("Retry-After")
    later = f"; try again in {retry_after} s" if retry_after else ""
    return printable(f"{answer.status} {text}{later}".strip())
