"""How a subscription stands: what it was given, what failed and why, lately. The figures behind `eventing why`."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from eventing.journal.advice import findings
from eventing.journal.documents import Counts, Failure, Standing
from eventing.journal.journal import Journal
from eventing.journal.record import FAILURES, Decision, Rule
from eventing.journal.story import PAUSE_S, SLICE, attempt_document, moment

__all__ = ["WINDOW_S", "Situation", "standing"]

WINDOW_S: Final = 300.0
_ATTEMPTS: Final = frozenset({Decision.DELIVERED, Decision.RETRYING, Decision.FAILED})


@dataclass(frozen=True, slots=True)
class Situation:
    """A subscription in this process, as its worker knows it. `number` is the subscriber's in the journal."""

    number: int
    channel: str
    pending: int
    pending_bytes: int | None
    oldest_s: float | None
    in_flight: int
    concurrency: int
    retry: int
    timeout_s: float
    dead_letter_sink: str  # without secrets; "": there is none


async def standing(journal: Journal, situation: Situation, *, window_s: float = WINDOW_S) -> Standing:
    """The situation with what the journal knows of the last `window_s` seconds, and what to do about it."""
    entry = journal.entry(situation.number)
    counts, last = await _counts(journal, situation, window_s)
    failure = _failure(journal, last) if last is not None else None
    uri = entry.uri if entry else ""
    return Standing(
        subscription=entry.subscription if entry else "",
        uid=entry.uid if entry else "",
        channel=situation.channel,
        subscriber=uri,
        since=moment(entry.since if entry and entry.since else journal.started),
        pending=situation.pending,
        pending_bytes=situation.pending_bytes,
        oldest_s=round(situation.oldest_s, 3) if situation.oldest_s is not None else None,
        in_flight=situation.in_flight,
        concurrency=situation.concurrency,
        dead_letter_sink=situation.dead_letter_sink,
        retry=situation.retry,
        timeout_s=situation.timeout_s,
        counts=counts,
        last_failure=failure,
        findings=findings(
            subscriber=uri,
            channel=situation.channel,
            counts=counts,
            failure=failure.attempt if failure else None,
            pending=situation.pending,
            oldest_s=situation.oldest_s or 0.0,
            in_flight=situation.in_flight,
            concurrency=situation.concurrency,
            retry=situation.retry,
            timeout_s=situation.timeout_s,
            dead_letter_sink=situation.dead_letter_sink,
        ),
    )


async def _counts(journal: Journal, situation: Situation, window_s: float) -> tuple[Counts, int | None]:
    start = journal.clock_time(journal.now) - window_s
    tally: Counter[tuple[int, int, int, int]] = Counter()
    last: int | None = None
    position = first_attempt = journal.attempts_since(start)
    while position < journal.attempts_written:
        found = journal.tally(situation.number, position, SLICE, tally)
        last = found if found is not None else last
        position += SLICE
        if position < journal.attempts_written:
            await asyncio.sleep(PAUSE_S)
    accepted = 0
    position = first_event = journal.accepted_since(start)
    while position < journal.accepted_events:
        accepted += journal.accepted_at(situation.channel, position, SLICE)
        position += SLICE
        if position < journal.accepted_events:
            await asyncio.sleep(PAUSE_S)
    statuses: Counter[str] = Counter()
    ends: dict[Decision, Counter[str]] = {Decision.DEAD_LETTERED: Counter(), Decision.DROPPED: Counter()}
    decisions: Counter[int] = Counter()
    for (status, decision, rule, failure), count in tally.items():
        decisions[decision] += count
        if decision in ends:
            ends[Decision(decision)][Rule(rule).reason] += count
        elif decision in _ATTEMPTS:
            statuses[FAILURES[failure] or str(status)] += count
    whole_attempts = not journal.attempts_kept_from or first_attempt > journal.attempts_kept_from
    whole_events = not journal.acceptances_kept_from or first_event > journal.acceptances_kept_from
    counts = Counts(
        window_s=window_s,
        accepted=accepted,
        attempts=statuses.total(),
        delivered=decisions[Decision.DELIVERED],
        retrying=decisions[Decision.RETRYING],
        dead_lettered=dict(ends[Decision.DEAD_LETTERED]),
        dropped=dict(ends[Decision.DROPPED]),
        statuses=dict(statuses),
        complete=whole_attempts and whole_events,
    )
    return counts, last


def _failure(journal: Journal, number: int) -> Failure | None:
    """The last attempt that failed: where record `number` says only that the event was given up, the attempt before it."""
    trail = journal.trail(number)
    if not trail:
        return None  # overwritten meanwhile
    record = next((each for each in reversed(trail) if each.decision in {Decision.RETRYING, Decision.FAILED}), trail[-1])
    acceptance = journal.find(record.receipt)
    return Failure(
        time=moment(journal.wall_time(record.started + record.duration_s)),
        receipt=journal.receipt_text(record.receipt) if record.receipt else "",
        id=acceptance.event.id if acceptance else "",
        attempt=attempt_document(journal, record),
    )
