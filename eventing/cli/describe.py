"""`eventing describe`: one object whole, for people, with what has happened to it."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from eventing.cli.completion import complete_targets
from eventing.cli.objects import Faults, Namespace, Selector, Target, api_client, targets
from eventing.cli.sections import SECTIONS
from eventing.cli.tables import aligned
from eventing.cli.terminal import DataDir, printable
from eventing.errors import ApiError
from eventing.runtime.api_client import ApiClient, ApiResource, Object

__all__ = ["describe"]

_OWN_LINES: Final = frozenset({"managedFields", "name", "namespace", "labels", "annotations"})
_ACRONYMS: Final = frozenset({"API", "URL", "UID", "GUID", "OSB"})
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z0-9]+")


def describe(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE[/NAME] [NAME]",
            help="A kind and names of it; all of it where none is given.",
            autocompletion=complete_targets,
            show_default=False,
        ),
    ],
    *,
    namespace: Namespace = "default",
    selector: Selector = "",
    data_dir: DataDir = None,
) -> None:
    """Show everything about objects, and the events that tell what happened to them.

    Example: eventing describe subscription bookkeeping
    """
    faults = Faults()
    first = True
    with api_client(data_dir) as client:
        for target in targets(client, words):
            with faults.collected():
                for obj in _objects(client, target, namespace, selector):
                    if not first:
                        typer.echo("\n")
                    first = False
                    typer.echo("\n".join(_description(client, target.resource, obj)))
    faults.end()


def _objects(client: ApiClient, target: Target, namespace: str, selector: str) -> Sequence[Object]:
    where = namespace if target.resource.namespaced else ""
    if target.name:
        return [client.get(target.resource, where, target.name)]
    listed: list[Object] = client.list(target.resource, where, labels=selector)["items"]
    return listed


def _description(client: ApiClient, resource: ApiResource, obj: Object) -> Iterator[str]:
    """Lines in the shape of `kubectl describe`: names, contents, sections of the kind's own, events."""
    metadata: Object = obj["metadata"]
    fields: list[tuple[int, str, str | None]] = [(0, "Name", _text(metadata["name"]))]
    if resource.namespaced:
        fields.append((0, "Namespace", _text(metadata.get("namespace", ""))))
    fields += _pairs("Labels", metadata.get("labels"), "=") + _pairs("Annotations", metadata.get("annotations"), ": ")
    content = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
    content["metadata"] = {name: value for name, value in metadata.items() if name not in _OWN_LINES}
    if resource.qualified == "secrets":
        content["data"] = {name: f"{len(value) * 3 // 4} bytes" for name, value in (obj.get("data") or {}).items()}
    fields += _contents(0, content)
    yield from _lines(fields)
    for section in SECTIONS.get(resource.qualified, ()):
        for table in section(client, obj):
            yield ""
            yield f"{table.title}:"
            rows = [table.columns, *table.rows]
            yield from ("  " + "".join(line).rstrip() for line in aligned([[printable(cell) for cell in row] for row in rows], 2))
    yield from _events(client, obj)


def _contents(level: int, content: Object) -> Iterator[tuple[int, str, str | None]]:
    for name in sorted(content):
        value = content[name]
        if isinstance(value, dict):
            yield level, _label(name), None
            yield from _contents(level + 1, value)
        elif isinstance(value, list):
            yield level, _label(name), None
            for member in value:
                if isinstance(member, dict):
                    yield from _contents(level + 1, member)
                else:
                    yield level + 1, "", _text(member)
        else:
            yield level, _label(name), _text(value)


def _pairs(label: str, pairs: dict[str, str] | None, between: str) -> list[tuple[int, str, str | None]]:
    if not pairs:
        return [(0, label, "<none>")]
    texts = [_text(f"{name}{between}{value}") for name, value in sorted(pairs.items())]
    return [(0, label if number == 0 else "\0", text) for number, text in enumerate(texts)]


def _lines(fields: Sequence[tuple[int, str, str | None]]) -> Iterator[str]:
    """Values that follow each other stand in one column, as kubectl's tab stops have it."""
    run: list[tuple[str, str]] = []
    for level, label, value in [*fields, (0, "", None)]:
        head = "" if label == "\0" else "  " * level + (f"{label}:" if label else "")
        if value is not None and label:
            run.append((head, value))
            continue
        width = max((len(each) for each, _ in run), default=0) + 2
        yield from (each.ljust(width) + text for each, text in run)
        run = []
        if label or value is not None:
            yield head + (value or "")


def _label(name: str) -> str:
    """`resourceVersion` → `Resource Version`, `uid` → `UID`, as kubectl does."""
    words = [word for word in _WORD.findall(name) if word.strip()]
    return " ".join(word.upper() if word.upper() in _ACRONYMS else word[:1].upper() + word[1:] for word in words) or name


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return printable("<nil>" if value is None else str(value))


def _events(client: ApiClient, obj: Object) -> Iterator[str]:
    metadata = obj["metadata"]
    wanted = {"kind": obj["kind"], "name": metadata["name"], "namespace": metadata.get("namespace", ""), "uid": metadata["uid"]}
    fields = ",".join(f"involvedObject.{name}={value}" for name, value in wanted.items())
    try:
        (resource,) = client.resolve("events")
        events: list[Object] = client.list(resource, metadata.get("namespace") or "default", fields=fields)["items"]
    except ApiError:  # an object is described without them, too
        return
    if not events:
        yield "Events:  <none>"
        return
    yield "Events:"
    rows = [["Type", "Reason", "Age", "From", "Message"], ["----", "------", "----", "----", "-------"]]
    for event in sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")):
        source = event.get("reportingComponent") or (event.get("source") or {}).get("component") or ""
        cells = (event.get("type"), event.get("reason"), _ago(event), source, event.get("message"))
        rows.append([_text(cell or "").strip() for cell in cells])
    yield from ("  " + "".join(line).rstrip() for line in aligned(rows, 2))


def _ago(event: Object) -> str:
    last = _seconds(event.get("lastTimestamp") or event.get("eventTime"))
    count = int(event.get("count") or 1)
    if count > 1:
        return f"{last} (x{count} over {_seconds(event.get('firstTimestamp'))})"
    return last


def _seconds(stamp: str | None) -> str:
    if not stamp:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
