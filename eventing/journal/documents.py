"""What the journal answers, as documents: the shapes of `eventing trace -o json`, of `tail -o json` and of the local API.

They are stable: members are added, never renamed or removed (tests/contract/test_journal_api.py). Times are RFC 3339 in UTC with
milliseconds, durations what their names say. Enumerations may grow.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Attempt",
    "Condition",
    "Counts",
    "Data",
    "Delivery",
    "Entry",
    "Failure",
    "Feed",
    "Finding",
    "JournalState",
    "Match",
    "NotDue",
    "Problem",
    "Refused",
    "RefusedGroup",
    "Response",
    "Standing",
    "Trace",
    "Why",
    "as_dict",
]

Time = Annotated[str, Meta(description="RFC 3339, UTC, with milliseconds.")]
State = Annotated[
    Literal["pending", "delivered", "dead-lettered", "dropped", "unknown"],
    Meta(
        description="`unknown`: the records that say which are overwritten; or the channel did not confirm that it stored the "
        "event (reason `Unconfirmed`)."
    ),
]


class Response(Struct, frozen=True, kw_only=True):
    """What was answered, as far as it is kept: attempts that did not succeed only, secrets masked. Where a reply or a dead letter
    was refused, what its receiver answered."""

    headers: Annotated[
        dict[str, str],
        Meta(
            description="All, in lower case and in the order in which they came, up to 64 and 2 KiB; a name that came twice has "
            "both values."
        ),
    ]
    body: Annotated[str, Meta(description="Its beginning; control characters replaced.")]
    headers_cut: Annotated[int, Meta(description="How many headers were left out or shortened.")] = 0


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt and what was decided after it; number 0: a decision without an attempt."""

    number: int
    started: Time
    duration_ms: float
    status: Annotated[int, Meta(description="HTTP status; 0: no answer.")]
    error: str
    outcome: Annotated[
        Literal["delivered", "retrying", "failed", "dead-lettered", "dropped", "replied", "released", "burying", "replying"],
        Meta(
            description="`failed`: no more attempts; the next entry says what became of the event. `burying`, `replying`: an "
            "attempt at the dead-letter sink or the reply address that is made again."
        ),
    ]
    rule: Annotated[str, Meta(description="Why, in CamelCase, as in metrics and records.")]
    retries: Annotated[int, Meta(description="How many retries the policy allows; 0 where that does not matter.")]
    wait_s: Annotated[float, Meta(description="Until the next attempt.")]
    decision: Annotated[str, Meta(description="What came, what was decided, by which rule, for people.")]
    response: Response | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """What became of an event at one subscription to which it was due."""

    subscription: str
    uid: str
    subscriber: Annotated[str, Meta(description="Its URL, without credentials and values of query parameters.")]
    state: State
    reason: Annotated[str, Meta(description="Why it ended so, in CamelCase; empty where it was delivered or is pending.")]
    explanation: Annotated[str, Meta(description="The reason for people.")]
    attempts: list[Attempt]


class NotDue(Struct, frozen=True, kw_only=True):
    """A subscription of the channel to which an event was not due."""

    subscription: str
    uid: str
    reason: Annotated[Literal["AddedLater", "Removed", "NotReady"], Meta(description="CamelCase.")]
    explanation: str


class Data(Struct, frozen=True, kw_only=True):
    """The data of an event. It is kept as long as the event's record, unless the channel has the annotation
    `eventing-mesh.dev/journal-data: omit`."""

    size: int | None
    kept: bool
    text: Annotated[str, Meta(description="Its beginning where it is text; control characters replaced.")]
    base64: Annotated[str | None, Meta(description="All of it; only where it was asked for.")] = None


class Match(Struct, frozen=True, kw_only=True):
    """One acceptance of an event, and what a process knows of it. Processes that share a channel each know a part: those of one
    `receipt` belong together."""

    receipt: Annotated[str, Meta(description="What the producer got for it, whichever process accepted it.")]
    id: str
    source: str
    type: str
    channel: str
    received: Annotated[
        str,
        Meta(description="RFC 3339, UTC, with milliseconds. Where it was not accepted here: when it came out of the channel."),
    ]
    from_: Annotated[str, Meta(description="Address and port of the client; empty where it was not accepted here.")] = (
        msgspec.field(name="from")
    )
    attributes: dict[str, str]
    data: Data
    deliveries: list[Delivery]
    not_due: list[NotDue]
    kept: Annotated[
        Literal["memory", "disk"],
        Meta(description="`disk`: from the record of failures; deliveries that succeeded are not known any more."),
    ]
    acceptance: Annotated[
        Literal["here", "elsewhere", "outside", "unconfirmed"],
        Meta(
            description="`elsewhere`: by another process of the mesh, by an earlier one, or so long ago that its record is "
            "overwritten; `deliveries` are those that this process has begun. `outside`: somebody else put it into the back end, "
            "and `receipt` is only this process's. `unconfirmed`: the channel did not confirm that it is stored, and the "
            "producer was answered 503."
        ),
    ] = "here"


class Refused(Struct, frozen=True, kw_only=True):
    """A request that was not accepted."""

    received: Time
    channel: str
    from_: str = msgspec.field(name="from")
    id: str
    status: int
    reason: str


class RefusedGroup(Struct, frozen=True, kw_only=True):
    """Requests to one address that were refused with the same answer."""

    channel: str
    status: int
    reason: str
    count: int
    last: Time


class JournalState(Struct, frozen=True, kw_only=True):
    """What the journal can still answer for."""

    process: Annotated[str, Meta(description="Prefix of this process's receipts.")]
    since: Annotated[Time, Meta(description="Received at this time or later: certainly still known in whole.")]
    events: int
    overwritten_events: int
    overwritten_attempts: int
    failures_written: Annotated[int, Meta(description="Terminal failures put on disk since the start of the process.")]
    failures_lost: Annotated[int, Meta(description="Terminal failures that could not be put there.")]


class Trace(Struct, frozen=True, kw_only=True):
    """What is known of an event id or a receipt."""

    query: str
    matches: list[Match]
    refused: Annotated[
        list[Refused], Meta(description="Where nothing matches: refused requests with this id, else the last ones.")
    ]
    refused_groups: Annotated[list[RefusedGroup], Meta(description="The same, of the last `refused_window_s`, counted.")]
    refused_window_s: float
    journal: JournalState
    unanswered: Annotated[
        list[str],
        Meta(description="`eventing trace` only: data-plane processes that did not answer; what only they know is missing."),
    ] = []


class Entry(Struct, frozen=True, kw_only=True):
    """One line of `eventing tail`."""

    kind: Literal["accepted", "attempt", "refused"]
    time: Time
    receipt: str
    id: str
    source: str
    type: str
    channel: str
    from_: str = msgspec.field(name="from", default="")
    subscription: str = ""
    subscriber: str = ""
    attempt: Attempt | None = None
    status: int = 0
    reason: str = ""
    data: Data | None = None


class Feed(Struct, frozen=True, kw_only=True):
    """What happened since a position. Ask again with `next`."""

    next: str
    entries: list[Entry]
    missed: Annotated[int, Meta(description="Records passed over: the reader was slower than the mesh.")]
    restarted: Annotated[bool, Meta(description="The position was of an earlier process; what lies between is not told.")]


class Counts(Struct, frozen=True, kw_only=True):
    """Of the last `window_s` seconds."""

    window_s: float
    accepted: Annotated[int, Meta(description="By the channel.")]
    attempts: int
    delivered: int
    retrying: Annotated[int, Meta(description="Attempts that failed and will be made again.")]
    dead_lettered: dict[str, int]
    dropped: dict[str, int]
    statuses: Annotated[dict[str, int], Meta(description="Attempts by status or error.")]
    complete: Annotated[bool, Meta(description="False: the journal does not reach back so far.")]


class Failure(Struct, frozen=True, kw_only=True):
    """The last attempt that did not succeed, or the last event that was given up."""

    time: Time
    receipt: str
    id: str
    attempt: Attempt


class Finding(Struct, frozen=True, kw_only=True):
    """Something noticed, and what to do about it."""

    severity: Literal["ok", "note", "warning", "error"]
    finding: str
    action: str


class Standing(Struct, frozen=True, kw_only=True):
    """How a subscription stands in a data-plane process; in `eventing why`, in all of them together."""

    subscription: str
    uid: str
    channel: str
    subscriber: str
    since: Annotated[Time, Meta(description="Events accepted from then on are due to it.")]
    pending: int
    pending_bytes: int | None
    oldest_s: float | None
    in_flight: int
    concurrency: int
    dead_letter_sink: str
    retry: Annotated[int, Meta(description="How many retries the policy allows.")] = 0
    timeout_s: Annotated[float, Meta(description="Of one attempt.")] = 0.0
    counts: Counts
    last_failure: Failure | None
    findings: list[Finding]


class Condition(Struct, frozen=True, kw_only=True):
    """A condition of the Subscription's status."""

    type: str
    status: str
    reason: str
    message: str
    since: Time


class Why(Struct, frozen=True, kw_only=True):
    """What `eventing why -o json` prints: the Subscription's own word on itself, and how it stands in the data plane."""

    subscription: str
    ready: Annotated[Literal["True", "False", "Unknown"], Meta(description="Of its condition Ready.")]
    ready_since: Annotated[str, Meta(description="When that last changed.")]
    conditions: list[Condition]
    standing: Annotated[Standing | None, Meta(description="None: it is not in force in the data plane.")]
    findings: list[Finding]
    unanswered: Annotated[
        list[str], Meta(description="Data-plane processes that did not answer: figures are of the others.")
    ] = []


class Problem(Struct, frozen=True, kw_only=True):
    """What is wrong with a request (RFC 9457)."""

    status: int
    title: str
    detail: str


def as_dict(document: Struct) -> dict[str, Any]:
    """The document as plain data, as JSON has it."""
    result: dict[str, Any] = msgspec.to_builtins(document)
    return result
