"""The answers of several data-plane processes to one question, put together: pure functions of documents.

Each process knows what it has accepted and attempted itself; the record of failures on disk is shared, so all of them tell of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from eventing.journal.advice import findings
from eventing.journal.documents import (
    Counts,
    Delivery,
    Finding,
    JournalState,
    Match,
    NotDue,
    Refused,
    RefusedGroup,
    Standing,
    Trace,
)

__all__ = ["joined_standing", "joined_trace"]

_REFUSED_MAX: Final = 100
_KNOWS: Final = {"unknown": 0, "pending": 1}  # any end beats both


def joined_trace(traces: Sequence[Trace]) -> Trace:
    """What all of them know of an event id or a receipt; at least one must be given."""
    matches: dict[str, Match] = {}
    for match in (match for trace in traces for match in trace.matches):
        known = matches.get(match.receipt)
        matches[match.receipt] = match if known is None else _joined_match(known, match)
    states = [trace.journal for trace in traces]
    return Trace(
        query=traces[0].query,
        matches=sorted(matches.values(), key=lambda match: (match.received, match.receipt)),
        refused=[] if matches else _refused(traces),
        refused_groups=[] if matches else _refused_groups(traces),
        refused_window_s=max(trace.refused_window_s for trace in traces),
        journal=JournalState(
            process=", ".join(state.process for state in states),
            since=max(state.since for state in states),  # what every one of them still knows in whole
            events=sum(state.events for state in states),
            overwritten_events=sum(state.overwritten_events for state in states),
            overwritten_attempts=sum(state.overwritten_attempts for state in states),
            failures_written=sum(state.failures_written for state in states),
            failures_lost=sum(state.failures_lost for state in states),
        ),
    )


def _joined_match(one: Match, other: Match) -> Match:
    """Two accounts of one acceptance: what memory knows of it beats the record on disk, and an end beats `pending`."""
    first, second = (other, one) if (one.kept, other.kept) == ("disk", "memory") else (one, other)
    deliveries: dict[str, Delivery] = {}
    for delivery in (*first.deliveries, *second.deliveries):
        known = deliveries.get(delivery.uid)
        if known is None or _knowledge(delivery) > _knowledge(known):
            deliveries[delivery.uid] = delivery
    not_due: dict[str, NotDue] = {each.uid: each for each in (*second.not_due, *first.not_due) if each.uid not in deliveries}
    return msgspec.structs.replace(first, deliveries=list(deliveries.values()), not_due=list(not_due.values()))


def _knowledge(delivery: Delivery) -> tuple[int, int]:
    return _KNOWS.get(delivery.state, 2), len(delivery.attempts)


def _refused(traces: Sequence[Trace]) -> list[Refused]:
    """Refused requests with this id where some process knows of any, else the last ones of all."""
    found = sorted((each for trace in traces for each in trace.refused), key=lambda each: each.received)
    return ([each for each in found if each.id == traces[0].query] or found)[-_REFUSED_MAX:]


def _refused_groups(traces: Sequence[Trace]) -> list[RefusedGroup]:
    groups: dict[tuple[str, int, str], RefusedGroup] = {}
    for group in (group for trace in traces for group in trace.refused_groups):
        key = (group.channel, group.status, group.reason)
        known = groups.get(key)
        groups[key] = group if known is None else msgspec.structs.replace(
            known, count=known.count + group.count, last=max(known.last, group.last)
        )  # fmt: skip
    return list(groups.values())


def joined_standing(standings: Sequence[Standing], absent: Sequence[str] = ()) -> Standing:
    """How a subscription stands in all processes together; at least one standing must be given. `absent` are the names of
    processes in which it is not in force."""
    first = standings[0]
    failures = [each.last_failure for each in standings if each.last_failure is not None]
    failure = max(failures, key=lambda each: each.time, default=None)
    sizes = [each.pending_bytes for each in standings if each.pending_bytes is not None]
    ages = [each.oldest_s for each in standings if each.oldest_s is not None]
    counts = _counts([each.counts for each in standings])
    pending, in_flight, concurrency = (
        sum(getattr(each, name) for each in standings) for name in ("pending", "in_flight", "concurrency")
    )
    noticed = findings(
        subscriber=first.subscriber,
        channel=first.channel,
        counts=counts,
        failure=failure.attempt if failure else None,
        pending=pending,
        oldest_s=max(ages, default=0.0),
        in_flight=in_flight,
        concurrency=concurrency,
        retry=first.retry,
        timeout_s=first.timeout_s,
        dead_letter_sink=first.dead_letter_sink,
    )
    return msgspec.structs.replace(
        first,
        since=max(each.since for each in standings),
        pending=pending,
        pending_bytes=sum(sizes) if sizes else None,
        oldest_s=max(ages, default=None),
        in_flight=in_flight,
        concurrency=concurrency,
        counts=counts,
        last_failure=failure,
        findings=[*_absent(absent, len(standings)), *noticed],
    )


def _absent(names: Sequence[str], present: int) -> Iterable[Finding]:
    if names:
        finding = f"it is in force in {present} of {present + len(names)} data-plane processes, and not in {', '.join(names)}"
        yield Finding(severity="warning", finding=finding, action="ask again in a moment; if that lasts, look at the mesh's log")


def _counts(counts: Sequence[Counts]) -> Counts:
    def summed(of: Iterable[Mapping[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for each in of:
            total.update(each)
        return dict(total)

    return Counts(
        window_s=max(each.window_s for each in counts),
        accepted=sum(each.accepted for each in counts),
        attempts=sum(each.attempts for each in counts),
        delivered=sum(each.delivered for each in counts),
        retrying=sum(each.retrying for each in counts),
        dead_lettered=summed(each.dead_lettered for each in counts),
        dropped=summed(each.dropped for each in counts),
        statuses=summed(each.statuses for each in counts),
        complete=all(each.complete for each in counts),
    )
