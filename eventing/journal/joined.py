"""The answers of several data-plane processes to one question, put together: pure functions of documents.

Processes that share a durable channel each know a part of an event's way: one accepted it, each of the others (and that one, too)
delivers to the subscriptions whose share of the channel it has at the time. Shares move, so one subscription may have been served
by two; and an event may come twice to it, since deliveries are at least once. What is told of it then is one end: the best.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from typing import Final

from msgspec import structs

from eventing.journal.advice import findings
from eventing.journal.documents import (
    Attempt,
    Counts,
    Delivery,
    Finding,
    JournalState,
    Match,
    Refused,
    RefusedGroup,
    Standing,
    Trace,
)

__all__ = ["END_STATES", "joined_matches", "joined_standing", "joined_trace"]

END_STATES: Final = ("delivered", "dead-lettered", "dropped")
"""The ends of a delivery, the best first."""

# Who knows most of the acceptance first.
_ACCEPTANCES: Final = ("here", "unconfirmed", "elsewhere", "outside")
_REFUSED_SHOWN: Final = 100


def joined_trace(traces: Sequence[Trace]) -> Trace:
    """One answer of those of several processes to the same question; there is at least one."""
    matches = joined_matches(match for trace in traces for match in trace.matches)
    refused: list[Refused] = []
    groups: list[RefusedGroup] = []
    window_s = min(trace.refused_window_s for trace in traces)
    if not matches:
        same_id = [each for trace in traces for each in trace.refused if each.id == trace.query]
        refused = same_id or [each for trace in traces for each in trace.refused]
        refused = sorted(refused, key=lambda each: each.received)[-_REFUSED_SHOWN:]
        # A process in which the last minute was quiet tells of a longer time: of the last minute it tells nothing.
        telling = [trace for trace in traces if trace.refused_groups]
        window_s = min((trace.refused_window_s for trace in telling), default=window_s)
        groups = _groups(group for trace in telling if trace.refused_window_s == window_s for group in trace.refused_groups)
    return Trace(
        query=traces[0].query,
        matches=matches,
        refused=refused,
        refused_groups=groups,
        refused_window_s=window_s,
        journal=_state([trace.journal for trace in traces]),
    )


def joined_matches(matches: Iterable[Match]) -> list[Match]:
    """One for each acceptance, oldest first."""
    by_receipt: dict[str, list[Match]] = {}
    outside: list[list[Match]] = []
    for number, match in enumerate(matches):
        if match.acceptance == "outside":
            _file(outside, match)
        else:  # without a receipt nothing says that two are one
            by_receipt.setdefault(match.receipt or f" {number}", []).append(match)
    found = [_match(group) for group in (*by_receipt.values(), *outside)]
    return sorted(found, key=_moment)


def _moment(match: Match) -> tuple[str, str, int]:
    """Many are accepted within the millisecond that a time is told to: those of one process are in the order of their numbers."""
    process, _, number = match.receipt.rpartition("-")
    return match.received, process, int(number) if number.isdecimal() else 0


def _file(groups: list[list[Match]], match: Match) -> None:
    """Nobody of the mesh gave this event a receipt: it is the same as another that has its source and id, unless a subscription
    that has met that one has met this one, too."""
    subscriptions = {delivery.uid for delivery in match.deliveries}
    for group in groups:
        first = group[0]
        if (first.channel, first.source, first.id) == (match.channel, match.source, match.id):
            met = {delivery.uid for each in group for delivery in each.deliveries}
            if first.receipt == match.receipt or not met & subscriptions:
                group.append(match)
                return
    groups.append([match])


def _match(group: Sequence[Match]) -> Match:
    if len(group) == 1:
        return group[0]
    ranked = sorted(group, key=lambda each: (_ACCEPTANCES.index(each.acceptance), each.kept != "memory"))
    deliveries: dict[str, list[tuple[Match, Delivery]]] = {}
    for match in ranked:
        for delivery in match.deliveries:
            deliveries.setdefault(delivery.uid or delivery.subscription, []).append((match, delivery))
    merged = [_delivery(each) for each in deliveries.values()]
    due = {name for each in merged for name in (each.uid, each.subscription)}
    not_due = {each.uid: each for match in reversed(ranked) for each in match.not_due}
    return structs.replace(
        ranked[0],
        data=max((match.data for match in ranked), key=lambda data: (data.base64 is not None, data.kept)),
        deliveries=merged,
        not_due=[each for each in not_due.values() if not {each.uid, each.subscription} & due],
        kept="memory" if any(match.kept == "memory" for match in ranked) else "disk",
    )


def _delivery(told: Sequence[tuple[Match, Delivery]]) -> Delivery:
    """What several know of one subscription: every attempt, and one end."""
    if len(told) == 1:
        return told[0][1]
    _, best = min(told, key=lambda each: _rank(*each))
    known: dict[tuple[object, ...], Attempt] = {}
    # Each tells in the order of what happened, which the times of beginning need not be.
    for attempt in merge(*(delivery.attempts for _, delivery in told), key=lambda attempt: attempt.started):
        known.setdefault((attempt.started, attempt.number, attempt.outcome, attempt.duration_ms, attempt.status), attempt)
    return structs.replace(best, attempts=list(known.values()))


def _rank(match: Match, delivery: Delivery) -> int:
    """How much a word on the state counts: an end, the best first; what is under way; that it is forgotten; and last what who
    accepted the event says of a subscription that others may serve."""
    if delivery.state in END_STATES:
        return END_STATES.index(delivery.state)
    begun = bool(delivery.attempts) or match.acceptance in {"elsewhere", "outside"}
    if delivery.state == "pending":
        return len(END_STATES) if begun else len(END_STATES) + 2
    return len(END_STATES) + (1 if begun or match.acceptance == "here" else 3)


def _groups(groups: Iterable[RefusedGroup]) -> list[RefusedGroup]:
    counts: Counter[tuple[str, int, str]] = Counter()
    last: dict[tuple[str, int, str], str] = {}
    for group in groups:
        key = (group.channel, group.status, group.reason)
        counts[key] += group.count
        last[key] = max(last.get(key, ""), group.last)
    return [
        RefusedGroup(channel=key[0], status=key[1], reason=key[2], count=count, last=last[key])
        for key, count in counts.most_common(_REFUSED_SHOWN)
    ]


def _state(states: Sequence[JournalState]) -> JournalState:
    """Known in whole is what all know in whole."""
    return JournalState(
        process=", ".join(state.process for state in states),
        since=max(state.since for state in states),
        events=sum(state.events for state in states),
        overwritten_events=sum(state.overwritten_events for state in states),
        overwritten_attempts=sum(state.overwritten_attempts for state in states),
        failures_written=sum(state.failures_written for state in states),
        failures_lost=sum(state.failures_lost for state in states),
    )


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
    return structs.replace(
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
