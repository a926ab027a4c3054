"""The journal as people ask for it: what became of one event, as plain data.

The shape is stable; `eventing trace -o json` prints it. Reading works in slices and gives the loop its turn in between, so that
a question never stalls a delivery.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from eventing.journal.record import FAILURES, Decision, Rule
from eventing.journal.ring import Acceptance, AttemptRecord, Journal, Refusal

__all__ = ["story"]

SLICE: Final = 2000  # records looked at in one turn of the loop: about 2 ms
MATCHES_MAX: Final = 100
REFUSALS_S: Final = 300.0


async def story(journal: Journal, query: str) -> dict[str, Any]:
    """What is known of a receipt or an event id: every acceptance that matches, newest last, with each subscription's attempts
    and end; and, where none matches, what was refused in the last five minutes."""
    acceptances = await _find(journal, query)
    if not acceptances:
        return {"matches": [], "refused": [_refusal(refusal) for refusal in _recent(journal, query)]}
    wanted = {acceptance.receipt for acceptance in acceptances}
    records: dict[int, list[AttemptRecord]] = {receipt: [] for receipt in wanted}
    position = journal.attempts_kept_from
    while position < journal.attempts_written:
        for record in journal.attempts(position, SLICE):
            if record.receipt in wanted:
                records[record.receipt].append(record)
        position += SLICE
        await asyncio.sleep(0)
    return {
        "matches": [_match(journal, acceptance, records[acceptance.receipt]) for acceptance in acceptances],
        "refused": [],
    }


async def _find(journal: Journal, query: str) -> list[Acceptance]:
    found: list[Acceptance] = []
    prefix, _, number = query.rpartition("-")
    receipt = int(number) if prefix == journal.prefix and number.isdecimal() and number.isascii() else 0
    position = journal.acceptances_kept_from
    while position < journal.accepted_events:
        found += journal.acceptances(position, SLICE, receipt=receipt, event_id=query)
        position += SLICE
        await asyncio.sleep(0)
    return found[-MATCHES_MAX:]


def _recent(journal: Journal, query: str) -> Iterable[Refusal]:
    refusals = journal.refusals
    same_id = [refusal for refusal in refusals if refusal.event_id == query]
    if same_id:
        return same_id
    newest = refusals[-1].received if refusals else 0.0
    return [refusal for refusal in refusals if refusal.received > newest - REFUSALS_S][-20:]


def _match(journal: Journal, acceptance: Acceptance, records: list[AttemptRecord]) -> dict[str, Any]:
    attributes = acceptance.event.attributes
    numbers = list(dict.fromkeys([*acceptance.due, *(record.subscriber for record in records)]))
    return {
        "receipt": journal.receipt_text(acceptance.receipt),
        "id": attributes["id"],
        "source": attributes["source"],
        "type": attributes["type"],
        "channel": acceptance.channel,
        "received": _iso(acceptance.received),
        "from": acceptance.peer,
        "deliveries": [
            _delivery(journal, number, [record for record in records if record.subscriber == number]) for number in numbers
        ],
    }


def _delivery(journal: Journal, number: int, records: list[AttemptRecord]) -> dict[str, Any]:
    entry = journal.entry(number)
    state, reason = "pending", ""
    for record in records:
        if record.decision is Decision.DELIVERED:
            state, reason = "delivered", ""
        elif record.decision is Decision.DEAD_LETTERED:
            state, reason = "dead-lettered", record.rule.reason
        elif record.decision is Decision.DROPPED:
            state, reason = "dropped", record.rule.reason
    return {
        "subscription": entry.subscription if entry else "",
        "uid": entry.uid if entry else "",
        "subscriber": entry.uri if entry else "",
        "state": state,
        "reason": reason,
        "attempts": [_attempt(journal, record) for record in records],
    }


def _attempt(journal: Journal, record: AttemptRecord) -> dict[str, Any]:
    failure = FAILURES[record.failure]
    note = journal.note(record.note)
    return {
        "number": record.attempt,
        "started": _iso(journal.wall_time(record.started)),
        "duration_ms": round(record.duration_s * 1000, 3),
        "status": record.status,
        "error": ": ".join(part for part in (failure, note) if part) if failure or _refusal_note(record) else "",
        "decision": _decision(record, failure, note),
    }


def _refusal_note(record: AttemptRecord) -> bool:
    """Whether the note is the beginning of what the subscriber answered."""
    return record.decision in {Decision.RETRYING, Decision.FAILED} and record.rule is not Rule.REPLY_FAILED


def _decision(record: AttemptRecord, failure: str, note: str) -> str:
    """One line: what came, what was decided, by which rule."""
    came = failure or (str(record.status) if record.status else "")
    rule = record.rule.text
    match record.decision:
        case Decision.DELIVERED:
            return f"delivered: {came}"
        case Decision.RETRYING:
            return f"{came} → retry {record.attempt} of {record.limit} in {record.wait_s:.1f} s: {rule}"
        case Decision.FAILED:
            return f"{came} → no more attempts: {rule}" + (f" ({note})" if record.rule is Rule.REPLY_FAILED else "")
        case Decision.DEAD_LETTERED:
            return f"dead-lettered to {note}: {rule}"
        case Decision.DROPPED:
            return f"dropped ({record.rule.reason}): {rule}" + (f" ({note})" if note else "")
        case _:
            return record.decision.name.lower()


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "received": _iso(refusal.received),
        "channel": refusal.channel,
        "from": refusal.peer,
        "id": refusal.event_id,
        "status": refusal.status,
        "reason": refusal.detail,
    }


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
