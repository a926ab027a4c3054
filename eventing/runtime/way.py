"""The way of an event, for people: what `eventing trace` prints and the quickstart shows."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventing.observe.lines import printable

__all__ = ["STATES", "TIMES", "answered", "line", "local_time", "show"]

STATES: Final = {
    "delivered": "green",
    "pending": "yellow",
    "retrying": "yellow",
    "burying": "yellow",
    "replying": "yellow",
    "failed": "red",
    "dead-lettered": "magenta",
    "dropped": "red",
    "unknown": "dim",
    "refused": "red",
    "accepted": "cyan",
}
TIMES: Final = "\u00d7"
_ANSWER_SHOWN: Final = 160
_VALUE_SHOWN: Final = 100
_HEADERS_SHOWN: Final = 400  # characters of them together
# Every answer has them, and they say nothing about why it was not another one. `-o json` has them all.
_EVERYDAY: Final = frozenset({"date", "content-length", "transfer-encoding", "connection", "keep-alive"})
# Told first, and so never left out.
_TELLING: Final = ("content-type", "retry-after", "location")
_REFUSED_SHOWN: Final = 5


def show(document: Mapping[str, Any], identity: str, console: Console) -> None:
    """Print the answer to a question for an event: a block per acceptance, a line per attempt."""
    matches = document["matches"]
    if not matches:
        _nothing(document, identity, console)
        return
    for number, match in enumerate(matches):
        if number:
            console.print()
        _acceptance(match, console)


def line(console: Console, text: Text, indent: int = 0, *, before: str = "", style: str = "") -> None:
    """Print `before` and `text`. On a terminal the text is broken at words, and goes on below where it began.
    `style` is that of `before`."""
    if not console.is_terminal:
        console.print(Text(" " * indent + before, style) + text, soft_wrap=True)
        return
    left = indent + len(before)
    if not left:
        console.print(text)
        return
    if before and left > console.width // 2:  # too narrow for two columns
        console.print(Text(" " * indent + before.rstrip(), style), soft_wrap=True)
        left, before = indent + 2, ""
    grid = Table.grid()
    grid.add_column(width=left, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(" " * (left - len(before)) + before, style), text)
    console.print(grid)


def _acceptance(match: Mapping[str, Any], console: Console) -> None:
    head = Text.assemble(
        (f"event {_safe(match['id'])}", "bold"),
        f"  type {_safe(match['type'])}  source {_safe(match['source'])}",
    )
    line(console, head)
    line(console, Text(_accepted(match)))
    _data(match.get("data"), console)
    if match.get("kept") == "disk":
        line(console, Text("from the record of failures on disk; what was delivered is not known any more", "dim"), 2)
    elif not match["deliveries"] and match.get("acceptance") in {None, "here"}:
        line(console, Text("the channel had no subscription then", style="yellow"), 2)
    for delivery in match["deliveries"]:
        _delivery(delivery, console)
    for other in match.get("not_due") or ():
        text = Text.assemble(f"{_safe(other['subscription'])}  ", ("not due", "dim"), f"  {_safe(other['explanation'])}")
        line(console, text, 2)


def _accepted(match: Mapping[str, Any]) -> str:
    """By whom, as far as is known, and with which receipt."""
    at = f" {local_time(match['received'])}" if match["received"] else ""
    channel, receipt = _safe(match["channel"]), _safe(match["receipt"])
    peer = f", from {_safe(match['from'])}" if match["from"] else ""
    match match.get("acceptance"):
        case "elsewhere":
            told = f"accepted by another process or an earlier one, receipt {receipt}; came out of {channel}{at}"
            return told + "; what is told is what was done here"
        case "outside":
            return f"put into {channel} by somebody else, not through the mesh; came out of it{at}, receipt {receipt}"
        case "unconfirmed":
            told = f"came{at} to {channel}{peer}, receipt {receipt}; the channel did not confirm that it is stored, so the"
            return f"{told} producer was answered 503"
        case _:
            return f"accepted{at} by {channel}{peer}, receipt {receipt}"


def _data(data: Mapping[str, Any] | None, console: Console) -> None:
    """Printed only where it was asked for whole."""
    if data is None or data.get("base64") is None:
        return
    size = f"data, {data['size']} bytes"
    line(console, Text(size + ":" if data["text"] else size + ", not text: -o json has them in base64"), 2)
    for text in data["text"].splitlines():
        console.print(Text("    " + printable(text, keep="\t")), soft_wrap=True)


def _delivery(delivery: Mapping[str, Any], console: Console) -> None:
    """A line for the subscription, with its end, and one for each attempt."""
    state, reason = str(delivery["state"]), _safe(delivery.get("reason") or "")
    subscription = _safe(delivery["subscription"]) or "a subscription that is gone"
    head = Text.assemble(
        f"{subscription}  ",
        (_safe(state), STATES.get(state, "")),
        f" ({reason})" if reason else "",
        f"  {_safe(delivery['subscriber'])}",
    )
    line(console, head, 2)
    for attempt in delivery["attempts"]:
        _attempt(attempt, console)
    if not delivery["attempts"]:
        told = "no attempt yet" if state == "pending" else _safe(delivery.get("explanation") or "")
        line(console, Text(told), 4)


def _attempt(attempt: Mapping[str, Any], console: Console) -> None:
    decision = _safe(attempt["decision"] or attempt["error"])
    ended = attempt.get("outcome") in {"dropped", "dead-lettered"} or not attempt["number"]
    first = "ended" if ended else f"attempt {attempt['number']}"
    if attempt.get("outcome") in {"burying", "replying"}:
        first = f"  {attempt['number']}"
    took = "" if ended and not attempt["duration_ms"] else f"{attempt['duration_ms']:8.1f} ms"
    when = local_time(attempt["started"])
    before = f"{first:10}  {when}  {took:11}  "
    line(console, Text(decision), 4, before=before)
    if answer := answered(attempt):
        line(console, Text(answer, style="dim"), 4, before=" " * len(before))


def answered(attempt: Mapping[str, Any]) -> str:
    """What the subscriber said, or how the exchange failed, where the decision does not say it already: a line, safe to print."""
    response, error = attempt.get("response"), str(attempt["error"])
    if response is None:
        return "" if error in attempt["decision"] else _cut(_safe(error))
    parts = list(_head(response["headers"], int(response.get("headers_cut") or 0)))
    if response["body"]:
        parts.append(f"“{_cut(str(response['body']))}”")
    elif error and error not in attempt["decision"]:
        parts.append(error)
    return _safe("answered " + ", ".join(parts)) if parts else ""


def _head(headers: Mapping[str, str], cut: int) -> Iterator[str]:
    """The headers of an answer that may say why, and how many more there are."""
    names = [name for name in _TELLING if name in headers]
    names += [name for name in headers if name not in _EVERYDAY and name not in _TELLING]
    shown = 0
    for number, name in enumerate(names):
        value = _cut(str(headers[name]), _VALUE_SHOWN)
        told = value if name == "content-type" else f"{name}: {value}"
        shown += len(told)
        if shown > _HEADERS_SHOWN:
            cut += len(names) - number
            break
        yield told
    if cut:
        yield f"{cut} more header{'' if cut == 1 else 's'}"


def _cut(text: str, limit: int = _ANSWER_SHOWN) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _nothing(document: Mapping[str, Any], identity: str, console: Console) -> None:
    line(console, Text(f"No event with the id or receipt {_safe(identity)} was accepted, as far as is known."))
    for told in _memory(document):
        line(console, Text(told))
    same_id = [entry for entry in document.get("refused") or () if entry["id"] == identity]
    if same_id:
        console.print("Requests with this id were refused:")
    for entry in same_id[-_REFUSED_SHOWN:]:
        told = f"{local_time(entry['received'])}  {_safe(entry['channel'])}  from {_safe(entry['from'])}  "
        line(console, Text(told + f"{entry['status']}  {_safe(entry['reason'])}"), 2)
    if len(same_id) > _REFUSED_SHOWN:
        console.print(f"  and {len(same_id) - _REFUSED_SHOWN} more before")
    groups = document.get("refused_groups") or []
    window = float(document.get("refused_window_s") or 60.0)
    lately = "last minute" if window <= 60 else f"last {window / 60:g} minutes"
    for channel in dict.fromkeys(group["channel"] for group in groups):
        of = [group for group in groups if group["channel"] == channel]
        total = sum(group["count"] for group in of)
        were = "requests to {} were" if total > 1 else "request to {} was"
        reasons = "; ".join(f"{group['count']} {TIMES} {group['status']} {_safe(group['reason'])}" for group in of)
        line(console, Text(f"{total} {were.format(_safe(channel))} refused in the {lately}: {reasons}"))
    if not groups and not same_id:
        console.print("Nothing was refused lately.")


def _memory(document: Mapping[str, Any]) -> Iterator[str]:
    """How far the answer reaches."""
    journal = document.get("journal")
    if journal is None:
        return
    gone = int(journal["overwritten_events"])
    known = f"The journal knows all that was accepted since {local_time(journal['since'])} ({journal['events']})"
    yield known + (f"; {gone} earlier ones are overwritten" if gone else "") + "; of what failed, also what was before."


def _safe(value: object) -> str:
    return printable(str(value))


def local_time(stamp: str) -> str:
    """Local time of day with milliseconds; the date, too, where it is not today."""
    try:
        moment = datetime.fromisoformat(stamp).astimezone()
    except ValueError:
        return _safe(stamp)
    day = "" if moment.date() == datetime.now(moment.tzinfo).date() else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
