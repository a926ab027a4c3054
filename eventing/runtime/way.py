"""The way of an event, for people: what `eventing trace` prints and the quickstart shows."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from eventing.observe.lines import printable

__all__ = ["show"]

_STATES: Final = {"delivered": "green", "pending": "yellow", "dead-lettered": "magenta", "dropped": "red"}
# Entries that are no attempt: what was decided after the last one, or without any.
_ENDS: Final = ("dropped", "dead-lettered")
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
    if not match["deliveries"]:
        console.print(Text("  the channel had no subscription then", style="yellow"))
    for delivery in match["deliveries"]:
        for line in _delivery(delivery):
            console.print(line, soft_wrap=True)


def _delivery(delivery: Mapping[str, Any]) -> Iterator[Text]:
    """A line for the subscription, with its end, and one for each attempt."""
    state, reason = str(delivery["state"]), _safe(delivery.get("reason") or "")
    subscription = _safe(delivery["subscription"]) or "a subscription that is gone"
    yield Text.assemble(
        f"  {subscription}  ",
        (_safe(state), _STATES.get(state, "")),
        f" ({reason})" if reason else "",
        f"  {_safe(delivery['subscriber'])}",
    )
    for attempt in delivery["attempts"]:
        decision = _safe(attempt["decision"] or attempt["error"])
        ended = decision.startswith(_ENDS)
        first = "ended" if ended else f"attempt {attempt['number']}"
        took = "" if ended else f"{attempt['duration_ms']:8.1f} ms"
        yield Text(f"    {first:10}  {_moment(attempt['started'])}  {took:11}  {decision}")
    if not delivery["attempts"] and state == "pending":
        yield Text("    no attempt yet")


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
