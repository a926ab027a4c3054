"""The way of an event, for people: what `eventing trace` prints and the quickstart shows."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventing.observe.lines import printable

__all__ = ["show"]

_STATES: Final = {"delivered": "green", "pending": "yellow", "dead-lettered": "magenta", "dropped": "red"}
_REFUSED_SHOWN: Final = 5


def show(document: Mapping[str, Any], identity: str, console: Console) -> None:
    """Print the answer of the admin endpoint's `/trace/ID`: a block per acceptance, a line per attempt."""
    matches = document["matches"]
    if not matches:
        _nothing(document, identity, console)
        return
    for number, match in enumerate(matches):
        if number:
            console.print()
        _acceptance(match, console)


def _acceptance(match: Mapping[str, Any], console: Console) -> None:
    head = Text.assemble(
        (f"event {_safe(match['id'])}", "bold"),
        f"  type {_safe(match['type'])}  source {_safe(match['source'])}",
    )
    console.print(head, soft_wrap=True)
    console.print(
        Text(f"accepted {_moment(match['received'])} by {_safe(match['channel'])}, from {_safe(match['from'])}, "
             f"receipt {_safe(match['receipt'])}"),
        soft_wrap=True,
    )  # fmt: skip
    deliveries = match["deliveries"]
    if not deliveries:
        console.print(Text("  the channel had no subscription when it was accepted", style="yellow"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("", "left"), ("SUBSCRIPTION", "left"), ("STATE", "left"), ("ATTEMPT", "right"), ("AT", "left"),
                          ("TOOK", "right"), ("DECISION", "left")):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in {"AT", "TOOK", "STATE"})  # type: ignore[arg-type]
    for delivery in deliveries:
        for row in _rows(delivery):
            table.add_row("", *row)
    console.print(table)


def _rows(delivery: Mapping[str, Any]) -> Iterator[tuple[Text, ...]]:
    state = str(delivery["state"])
    name, shown = Text(_safe(delivery["subscription"])), Text(state, style=_STATES.get(state, ""))
    attempts = delivery["attempts"]
    reason = _safe(delivery.get("reason") or "")
    for attempt in attempts:
        decision = _safe(attempt["decision"] or attempt["error"])
        yield (
            name,
            shown,
            Text(str(attempt["number"])),
            Text(_moment(attempt["started"])),
            Text(f"{attempt['duration_ms']:.1f} ms"),
            Text(decision),
        )
        name = shown = Text("")
    # What was decided without an attempt, or after the last one: Overflow, SubscriptionDeleted, Shutdown.
    if not attempts or (reason and reason not in _safe(attempts[-1]["decision"])):
        yield name, shown, Text(""), Text(""), Text(""), Text(reason or "waits for its first attempt")


def _nothing(document: Mapping[str, Any], identity: str, console: Console) -> None:
    console.print(Text(f"No event with the id or receipt {_safe(identity)} is known here."))
    refused = document.get("refused") or []
    if not refused:
        console.print("Nothing was refused lately either. The memory of events is bounded, and ends with the mesh.")
        return
    console.print("Refused lately:")
    for entry in refused[:_REFUSED_SHOWN]:
        console.print(
            Text(f"  {_moment(entry['received'])}  {_safe(entry['channel'])}  from {_safe(entry['from'])}  "
                 f"{entry['status']}  {_safe(entry['reason'])}"),
            soft_wrap=True,
        )  # fmt: skip
    if len(refused) > _REFUSED_SHOWN:
        console.print(f"  and {len(refused) - _REFUSED_SHOWN} more")


def _safe(value: object) -> str:
    return printable(str(value))


def _moment(stamp: str) -> str:
    """Local time of day with milliseconds; the date, too, where it is not today."""
    try:
        moment = datetime.fromisoformat(stamp).astimezone()
    except ValueError:
        return _safe(stamp)
    day = "" if moment.date() == datetime.now(moment.tzinfo).date() else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
