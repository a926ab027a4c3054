"""`eventing why`: why a Subscription gets its events or does not, on one screen."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer

from eventing.cli.completion import complete_namespaces, complete_subscriptions
from eventing.cli.terminal import DataDir, printable, qualified, say_unanswered
from eventing.errors import EventingError, ObjectNotFoundError

__all__ = ["why"]

_MARKS: Final = {"error": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "cyan"), "ok": ("✓", "green")}
_READY: Final = {"True": ("Ready", "green"), "False": ("not Ready", "red"), "Unknown": ("not Ready yet", "yellow")}


def why(
    subscription: Annotated[
        str,
        typer.Argument(
            metavar="[NAMESPACE/]SUBSCRIPTION", help="Name of the Subscription.", autocompletion=complete_subscriptions
        ),
    ],
    *,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Its namespace.", autocompletion=complete_namespaces)
    ] = "default",
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="For people, or for programs.")] = "text",
    data_dir: DataDir = None,
) -> None:
    """Say why a Subscription gets its events or does not: Ready or not, lag, what came and what failed lately, what to do.

    Exit code 3: there is no such Subscription.

    Example: eventing why bookkeeping
    """
    import msgspec

    from eventing.journal.documents import Standing, as_dict
    from eventing.runtime.api_client import ApiClient
    from eventing.runtime.mesh_client import MeshClient
    from eventing.runtime.why import explain

    where, _, name = qualified(subscription, namespace).partition("/")
    with ApiClient.find(data_dir) as api:
        (kind,) = api.resolve("subscriptions.messaging.knative.dev")
        try:
            found = api.get(kind, where, name)
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(404, "NotFound", f"{error}{_suggestion(api.list(kind)['items'], where, name)}") from error
    standing, unanswered = None, list[str]()
    with MeshClient.find(data_dir) as mesh:
        try:
            told, unanswered = mesh.standing(where, name)
        except EventingError as error:
            typer.echo(f"eventing: the data plane cannot be asked: {printable(str(error))}", err=True)
        else:
            standing = msgspec.convert(told, Standing) if told is not None else None
            say_unanswered(unanswered, len(mesh.endpoints.admin_urls))
    document = {**as_dict(explain(found, standing)), "unanswered": unanswered}
    if output == "json":
        typer.echo(json.dumps(document, indent=2))
    else:
        _show(document)


def _suggestion(subscriptions: list[Mapping[str, Any]], namespace: str, name: str) -> str:
    from difflib import get_close_matches  # needed only here

    names = [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in subscriptions]
    elsewhere = [each for each in names if each.partition("/")[2] == name]
    close = elsewhere or get_close_matches(f"{namespace}/{name}", names, 1)
    return f": did you mean {close[0]}?" if close else ""


def _show(document: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from eventing.runtime.way import line

    console = Console(highlight=False)
    ready, style = _READY[document["ready"]]
    since = f" since {_moment(document['ready_since'])}" if document["ready_since"] else ""
    head = Text.assemble(("Subscription ", ""), (_safe(document["subscription"]), "bold"), "  ", (ready, style), since)
    line(console, head)
    rows = list(_rows(document))
    width = max((len(label) for label, _ in rows), default=0) + 2
    for label, text in rows:
        line(console, Text(text), 2, before=f"{label:{width}}")
    console.print()
    line(console, Text("What to do" if any(f["severity"] != "ok" for f in document["findings"]) else "All is well"))
    for finding in document["findings"]:
        mark, style = _MARKS[finding["severity"]]
        line(console, Text(_safe(finding["finding"])), 2, before=mark + " ", style=style)
        if finding["severity"] != "ok":
            line(console, Text(f"→ {_safe(finding['action'])}"), 4)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    unmet = [each for each in document["conditions"] if each["status"] != "True" and each["type"] != "Ready"]
    for condition in [each for each in unmet if each["status"] == "False"] or unmet:
        if document["ready"] != "True":
            message = f": {condition['message']}" if condition["message"] else ""
            yield "condition", _safe(f"{condition['type']} {condition['status']} {condition['reason']}{message}")
    from eventing.runtime.way import TIMES, answered

    standing = document["standing"]
    if standing is None:
        return
    yield "from, to", _safe(f"channel {standing['channel']} → {standing['subscriber'] or 'nowhere'}")
    yield "dead letters", _safe(standing["dead_letter_sink"] or "dropped: there is no dead-letter sink")
    if standing["pending"]:
        age = f", the oldest for {_duration(standing['oldest_s'])}" if standing["oldest_s"] is not None else ""
        places = f"; {standing['in_flight']} of {standing['concurrency']} places taken"
        yield "lag", f"{_count(standing['pending'], 'event')}{age}{places}"
    else:
        yield "lag", "none: nothing waits"
    counts = standing["counts"]
    label = f"last {counts['window_s'] / 60:g} min"
    parts = [f"{counts['accepted']} accepted by the channel", f"{counts['delivered']} delivered"]
    if counts["retrying"]:
        parts.append(f"{counts['retrying']} tried again")
    parts += [f"{count} dead-lettered ({reason})" for reason, count in counts["dead_lettered"].items()]
    parts += [f"{count} dropped ({reason})" for reason, count in counts["dropped"].items()]
    yield label, _safe(", ".join(parts) + ("" if counts["complete"] else "; at least: the journal does not reach back so far"))
    if counts["statuses"]:
        most = sorted(counts["statuses"].items(), key=lambda item: -item[1])
        yield "attempts", _safe(", ".join(f"{count} {TIMES} {status}" for status, count in most))
    failure = standing["last_failure"]
    if failure is not None:
        attempt = failure["attempt"]
        which = f"event {failure['id']}" if failure["id"] else f"receipt {failure['receipt']}"
        yield "last error", _safe(f"{_moment(failure['time'])}, {which}, {attempt['decision']}")
        if answer := answered(attempt):
            yield "", answer


def _safe(value: object) -> str:
    return printable(str(value))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _moment(stamp: str) -> str:
    """Local time, and how long ago that is."""
    from eventing.runtime.way import local_time

    try:
        ago = (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()
    except ValueError:
        return _safe(stamp)
    return f"{local_time(stamp).partition('.')[0]} ({_duration(max(0.0, ago))} ago)"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
