"""The journal as people ask for it: what became of one event.

Reading works in slices and gives the loop its turn in between, so that a question never stalls a delivery.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from msgspec import structs

from eventing.event import Event
from eventing.journal.acceptance import FOREIGN, UNCONFIRMED, Acceptance
from eventing.journal.details import ANSWERED
from eventing.journal.documents import (
    Attempt,
    Data,
    Delivery,
    JournalState,
    Match,
    NotDue,
    Refused,
    RefusedGroup,
    Response,
    Trace,
    as_dict,
)
from eventing.journal.heads import headers_of_text
from eventing.journal.joined import END_STATES, joined_matches
from eventing.journal.journal import Journal
from eventing.journal.places import Place
from eventing.journal.record import FAILURES, AttemptRecord, Decision, Rule
from eventing.journal.refusals import Refusal
from eventing.observe.lines import printable

__all__ = ["attempt_document", "data_document", "delivery_document", "failure_document", "moment", "story", "trace"]

SLICE: Final = 1000  # records looked at in one turn of the loop: about 0.2 ms
PAUSE_S: Final = 0.001  # until the next: a question gets a share of the processor, deliveries the rest
MATCHES_MAX: Final = 100
REFUSALS_S: Final = 300.0
REFUSALS_SHOWN: Final = 20
# What was refused is counted over the last minute; over the last quarter of an hour where that was quiet.
WINDOWS_S: Final = (60.0, 900.0)
REMOVED_S: Final = 3600.0  # a subscription that went longer before an event was accepted is not spoken of any more
TEXT_SHOWN: Final = 2000  # characters of an event's data

_OUTCOMES: Final = {
    Decision.DELIVERED: "delivered",
    Decision.RETRYING: "retrying",
    Decision.DEAD_LETTERED: "dead-lettered",
    Decision.DROPPED: "dropped",
    Decision.FAILED: "failed",
    Decision.REPLIED: "replied",
    Decision.RELEASED: "released",
    Decision.BURYING: "burying",
    Decision.REPLYING: "replying",
}
_ENDS: Final = {
    Decision.DELIVERED: "delivered",
    Decision.DEAD_LETTERED: "dead-lettered",
    Decision.DROPPED: "dropped",
}
_UNCONFIRMED: Final[dict[str, Any]] = {
    "state": "unknown",
    "reason": "Unconfirmed",
    "explanation": "the channel did not confirm that it stored the event",
}
_FAILED: Final = frozenset({Decision.RETRYING, Decision.FAILED, Decision.BURYING, Decision.REPLYING})
Recorded = Callable[[str], Awaitable[Sequence[Match]]]
"""What the record of failures on disk knows of an event id or a receipt."""


async def story(journal: Journal, query: str) -> dict[str, Any]:
    """`trace` as plain data."""
    return as_dict(await trace(journal, query))


async def trace(
    journal: Journal, query: str, *, channel: str = "", with_data: bool = False, recorded: Recorded | None = None
) -> Trace:
    """What is known of a receipt or an event id: every acceptance that matches, newest last, with each subscription's attempts
    and end; and, where none matches, what was refused lately, at `channel` (NAMESPACE/NAME) or anywhere.

    `with_data`: the whole data of the events, too. `recorded` asks the disk for what memory does not know any more."""
    acceptances = [a for a in await _find(journal, query) if channel in {"", a.channel}]
    matches = joined_matches(await _matches(journal, acceptances, with_data=with_data))
    if recorded is not None:
        older = [each for each in await recorded(query) if channel in {"", each.channel}]
        matches = joined_matches([*older, *matches])[-MATCHES_MAX:]
    refused: list[Refused] = []
    groups: list[RefusedGroup] = []
    window_s = 0.0
    if not matches:
        at_channel = [each for each in journal.refusals if channel in {"", each.channel}]
        refused = [_refused(refusal) for refusal in _recent(journal, at_channel, query)]
        window_s, groups = _grouped(journal, at_channel)
    return Trace(
        query=query, matches=matches, refused=refused, refused_groups=groups, refused_window_s=window_s, journal=state(journal)
    )


async def _find(journal: Journal, query: str) -> list[Acceptance]:
    prefix, _, number = query.rpartition("-")
    if prefix == journal.prefix and number.isdecimal() and number.isascii() and len(number) < 20:
        found = journal.find(int(number))
        if found is not None:
            return [found]
    matching: list[Acceptance] = []
    position = journal.acceptances_kept_from
    while position < journal.accepted_events:
        matching += journal.acceptances(position, SLICE, query)
        position += SLICE
        if position < journal.accepted_events:
            await asyncio.sleep(PAUSE_S)
    return matching[-MATCHES_MAX:]


async def _matches(journal: Journal, acceptances: list[Acceptance], *, with_data: bool) -> list[Match]:
    if not acceptances:
        return []
    records: dict[int, list[AttemptRecord]] = {acceptance.receipt: [] for acceptance in acceptances}
    position = journal.attempts_since(min(acceptance.stored for acceptance in acceptances))
    while position < journal.attempts_written:
        for record in journal.attempts_of(records, position, SLICE):
            records[record.receipt].append(record)
        position += SLICE
        if position < journal.attempts_written:
            await asyncio.sleep(PAUSE_S)
    return [_match(journal, each, records[each.receipt], with_data=with_data) for each in acceptances]


def _match(journal: Journal, acceptance: Acceptance, records: list[AttemptRecord], *, with_data: bool) -> Match:
    attributes = acceptance.event.attributes
    numbers = list(dict.fromkeys([*acceptance.due, *(record.subscriber for record in records)]))
    by_number: dict[int, list[AttemptRecord]] = {number: [] for number in numbers}
    for record in records:
        by_number[record.subscriber].append(record)
    deliveries = [delivery_document(journal, number, by_number[number], acceptance.stored) for number in numbers]
    if not acceptance.confirmed:
        deliveries = [each if each.attempts else structs.replace(each, **_UNCONFIRMED) for each in deliveries]
    return Match(
        receipt=journal.receipt_text(acceptance.receipt),
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        channel=acceptance.channel,
        received=moment(acceptance.received),
        from_=acceptance.peer,
        attributes=dict(attributes),
        data=data_document(acceptance, whole=with_data),
        deliveries=deliveries,
        not_due=_not_due(journal, acceptance, set(numbers), {each.subscription for each in deliveries}),
        kept="memory",
        acceptance=_kind(acceptance.foreign, bool(acceptance.origin), acceptance.confirmed),
    )


def _kind(foreign: bool, receipted: bool, confirmed: bool) -> Literal["here", "elsewhere", "outside", "unconfirmed"]:
    if foreign:
        return "elsewhere" if receipted else "outside"
    return "here" if confirmed else "unconfirmed"


def data_document(acceptance: Acceptance, *, whole: bool = False, shown: int = TEXT_SHOWN) -> Data:
    """The data of the event, as far as it is kept; `shown` characters of it where it is text."""
    return (
        _data(acceptance.event.data, whole=whole, shown=shown) if acceptance.data_kept else Data(size=None, kept=False, text="")
    )


def _data(data: bytes, *, whole: bool = False, shown: int = TEXT_SHOWN) -> Data:
    try:
        text = data[: shown * 4].decode()
    except UnicodeDecodeError as error:  # a character cut in two is no reason to show nothing
        text = data[: error.start].decode() if error.start > shown * 4 - 4 else ""
    return Data(
        size=len(data),
        kept=True,
        text=printable(text[:shown], keep="\n\t"),
        base64=base64.b64encode(data).decode() if whole else None,
    )


def failure_document(journal: Journal, event: Event, subscriber: int, number: int) -> Match:
    """What is recorded on disk of an event that ended badly at a subscriber, with record `number`: one delivery."""
    attributes = event.attributes
    arrival = journal.arrival(event.receipt)
    entry = journal.entry(subscriber)
    stored, text, place, flags = arrival or (None, "", Place(entry.channel if entry else "", (), data=True), 0)
    foreign = bool(flags & FOREIGN)
    return Match(
        receipt=journal.receipt_text(event.receipt) if event.receipt else "",
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        channel=place.channel,
        received=moment(journal.wall_time(stored)) if stored is not None else "",
        from_="" if foreign else text,
        attributes=dict(attributes),
        data=_data(event.data) if place.data else Data(size=None, kept=False, text=""),
        deliveries=[delivery_document(journal, subscriber, journal.trail(number), 0.0)],
        not_due=[],
        kept="disk",
        acceptance=_kind(foreign, bool(text), not flags & UNCONFIRMED),
    )


def _not_due(journal: Journal, acceptance: Acceptance, numbers: set[int], due: set[str]) -> list[NotDue]:
    """The channel's other subscriptions, and why the event was not due to them; one entry for each name. Who did not accept it
    does not know."""
    found: dict[str, NotDue] = {}
    if acceptance.foreign:
        return []
    for number, entry in journal.places.entries():
        if entry.channel != acceptance.channel or number in numbers or entry.subscription in due:
            continue
        reason: Literal["AddedLater", "Removed"]
        if entry.since > acceptance.received:
            reason, text = "AddedLater", f"it was added to the channel later, at {moment(entry.since)}"
        elif entry.left and acceptance.received - REMOVED_S < entry.left <= acceptance.received:
            reason, text = "Removed", f"it was removed from the channel before, at {moment(entry.left)}"
        else:
            continue
        found[entry.subscription] = NotDue(subscription=entry.subscription, uid=entry.uid, reason=reason, explanation=text)
    return list(found.values())


def delivery_document(journal: Journal, number: int, records: Sequence[AttemptRecord], stored: float) -> Delivery:
    """What became of an event at subscriber `number`, of its `records` there; `stored`: when it was accepted (loop's clock)."""
    entry = journal.entry(number)
    state, reason, explanation = "pending", "", ""
    ends = [record for record in records if record.decision in _ENDS]
    if ends:  # one, unless the event came again although it had ended
        end = min(ends, key=lambda record: END_STATES.index(_ENDS[record.decision]))
        state = _ENDS[end.decision]
        reason, explanation = ("", "") if state == "delivered" else (end.rule.reason, end.rule.text)
    elif entry is not None and entry.gone:
        # What waits in a durable back end goes with the subscription's place there, unread: nobody records each of them.
        rule = Rule.CHANNEL_DELETED if entry.closed else Rule.SUBSCRIPTION_DELETED
        state, reason, explanation = "dropped", rule.reason, rule.text
    if not records and _overwritten(journal, stored):
        state, reason = "unknown", "Overwritten"
        explanation = "the journal has overwritten what it knew of it"
    return Delivery(
        subscription=entry.subscription if entry else "",
        uid=entry.uid if entry else "",
        subscriber=entry.uri if entry else "",
        state=cast("Any", state),
        reason=reason,
        explanation=explanation,
        attempts=[attempt_document(journal, record) for record in records],
    )


def _overwritten(journal: Journal, stored: float) -> bool:
    """Whether records of what was accepted at `stored` may have been overwritten."""
    oldest = journal.attempts_kept_from
    return bool(oldest) and journal.attempt_ended(oldest) > stored


def attempt_document(journal: Journal, record: AttemptRecord) -> Attempt:
    failure = FAILURES[record.failure]
    detail = journal.detail(record)
    text, _, body = detail.text.partition(ANSWERED) if detail else ("", "", "")
    attempted = record.decision in _FAILED
    if attempted and not failure:
        body = text  # an answer needs no words of ours
    response = None
    # Of an end, only where that came with an answer: a dead-letter sink's that did not take the event.
    if detail and record.status and (attempted or detail.head or body):
        headers, cut = headers_of_text(detail.head)
        response = Response(headers=headers, body=body, headers_cut=cut)
    shown = record.rule is not Rule.REPLY_FAILED and attempted
    return Attempt(
        number=record.attempt,
        started=moment(journal.wall_time(record.started)),
        duration_ms=round(record.duration_s * 1000, 3),
        status=record.status,
        error=": ".join(part for part in (failure, text) if part) if failure or shown else "",
        outcome=cast("Any", _OUTCOMES[record.decision]),
        rule=record.rule.reason,
        retries=record.limit,
        wait_s=round(record.wait_s, 3),
        decision=_decision(record, failure, text, detail.delay_s if detail else 0.0),
        response=response,
    )


def _decision(record: AttemptRecord, failure: str, text: str, delay_s: float) -> str:
    """One line: what came, what was decided, by which rule."""
    came = failure or (str(record.status) if record.status else "")
    rule = record.rule.text
    match record.decision:
        case Decision.DELIVERED:
            return f"delivered: {came}"
        case Decision.RETRYING | Decision.BURYING | Decision.REPLYING:
            wait = f"{record.wait_s:.1f}" if record.wait_s >= 1 else f"{record.wait_s:.2g}"
            where = {Decision.BURYING: "dead-letter sink: ", Decision.REPLYING: "reply: "}.get(record.decision, "")
            return f"{where}{came} → retry {record.attempt} of {record.limit} in {wait} s: {record.rule.told(delay_s)}"
        case Decision.FAILED:
            return f"{came} → no more attempts: {rule}" + (f" ({text})" if record.rule is Rule.REPLY_FAILED and text else "")
        case Decision.DEAD_LETTERED:
            return f"dead-lettered to {text}: {rule}" if text else f"dead-lettered: {rule}"
        case Decision.DROPPED:
            return f"dropped ({record.rule.reason}): {rule}" + (f" ({text})" if text else "")
        case _:
            return record.decision.name.lower()


def _recent(journal: Journal, refusals: Sequence[Refusal], query: str) -> Iterable[Refusal]:
    same_id = [refusal for refusal in refusals if refusal.event_id == query]
    if same_id:
        return same_id[-REFUSALS_SHOWN:]
    oldest = journal.now - REFUSALS_S
    return [refusal for refusal in refusals if refusal.received > oldest][-REFUSALS_SHOWN:]


def _grouped(journal: Journal, refusals: Sequence[Refusal]) -> tuple[float, list[RefusedGroup]]:
    """Refusals of the last minute, or quarter of an hour, counted by address, status and reason; most first."""
    for window_s in WINDOWS_S:
        recent = [refusal for refusal in refusals if refusal.received > journal.now - window_s]
        if recent:
            counted = Counter((each.channel, each.status, each.detail) for each in recent)
            last = {(each.channel, each.status, each.detail): each.received for each in recent}
            return window_s, [
                RefusedGroup(channel=key[0], status=key[1], reason=key[2], count=count, last=moment(last[key]))
                for key, count in counted.most_common(REFUSALS_SHOWN)
            ]
    return WINDOWS_S[0], []


def _refused(refusal: Refusal) -> Refused:
    return Refused(
        received=moment(refusal.received),
        channel=refusal.channel,
        from_=refusal.peer,
        id=refusal.event_id,
        status=refusal.status,
        reason=refusal.detail,
    )


def state(journal: Journal) -> JournalState:
    """What the journal can still answer for."""
    oldest = journal.attempts_kept_from
    since = journal.started
    if oldest:
        since = max(since, journal.wall_time(journal.attempt_ended(oldest)))
    kept_from = journal.acceptances_kept_from
    if kept_from:
        since = max(since, journal.wall_time(journal.channel_of(kept_from)[1]) if kept_from < journal.accepted_events else since)
    return JournalState(
        process=journal.prefix,
        since=moment(since),
        events=journal.accepted_events - kept_from,
        overwritten_events=kept_from,
        overwritten_attempts=oldest,
        failures_written=journal.failures_written,
        failures_lost=journal.failures_lost,
    )


def moment(wall: float) -> str:
    """A time of the calendar as RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
