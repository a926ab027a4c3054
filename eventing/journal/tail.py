"""What happens, as it happens: the feed behind `eventing tail`.

A reader asks for what came after its position; the rings are the only buffer. So a reader costs nothing until it asks, one that
is slow holds nobody up, and what it has missed is a difference of two numbers.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from eventing.journal.acceptance import Acceptance
from eventing.journal.documents import Data, Entry, Feed
from eventing.journal.journal import Journal
from eventing.journal.record import AttemptRecord, Decision
from eventing.journal.story import attempt_document, data_document, moment

__all__ = ["Position", "Wanted", "feed"]

ENTRIES_MAX: Final = 200  # in one answer
SCAN: Final = 100  # attempts looked at in one turn of the loop
MADE: Final = 20  # events made from their bytes in one turn of the loop: half a millisecond
# Events made from their bytes between two pauses: a reader gets a tenth of the processor, however much happens.
LOOKED_AT: Final = 200
# A reader that is further behind is put down this near to the present: a feed that is minutes old is no feed.
BEHIND_MAX: Final = 20_000
NEAR: Final = 1_000
SHOWN: Final = 500  # characters of an event's data
PAUSE_S: Final = 0.05
# An event of a durable channel may be attempted before the channel has said that it is stored: its attempt is told so much later,
# at most, for what is known of it then.
STORING_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asked for; "" is anything. `failed`: what did not succeed."""

    channel: str = ""  # NAMESPACE/NAME
    subscription: str = ""  # NAMESPACE/NAME
    type: str = ""
    failed: bool = False


@dataclass(slots=True)
class Position:
    """Of a reader: how many acceptances, attempts and refusals of the process it has seen."""

    accepted: int
    attempts: int
    refused: int

    def text(self, process: str) -> str:
        return f"{process}.{self.accepted}.{self.attempts}.{self.refused}"

    @classmethod
    def end(cls, journal: Journal) -> "Position":
        return cls(journal.accepted_events, journal.attempts_written, journal.refused_requests.total)

    @classmethod
    def parse(cls, text: str, journal: Journal) -> "Position | None":
        """None where the position is of another process. Raises ValueError for what is none."""
        process, *numbers = text.split(".")
        if len(numbers) != 3 or not all(number.isdecimal() and number.isascii() and len(number) < 20 for number in numbers):
            raise ValueError(f"{text[:60]!r} is no position: give back `next` of the answer before, or nothing")
        if process != journal.prefix:
            return None
        end = cls.end(journal)
        accepted, attempts, refused = map(int, numbers)
        return cls(min(accepted, end.accepted), min(attempts, end.attempts), min(refused, end.refused))


@dataclass(frozen=True, slots=True)
class _Found:
    moment: float  # of the loop's clock
    order: int  # an event is accepted before it is attempted, also within one tick of the clock
    number: int
    entry: Entry


async def feed(journal: Journal, after: str, wanted: Wanted, *, wait_s: float = 0.0) -> Feed:
    """What happened after the position `after` ("": now), oldest first; waits up to `wait_s` seconds for something to happen.

    Raises ValueError for a position that is none."""
    position = Position.parse(after, journal) if after else Position.end(journal)
    if position is None:
        return Feed(next=Position.end(journal).text(journal.prefix), entries=[], missed=0, restarted=True)
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    missed = 0
    while True:
        missed += _catch_up(journal, position)
        entries = await _entries(journal, position, wanted)
        if entries or missed or loop.time() >= end:
            return Feed(next=position.text(journal.prefix), entries=entries, missed=missed, restarted=False)
        await asyncio.sleep(PAUSE_S)
        while loop.time() < end and position == Position.end(journal):
            await asyncio.sleep(PAUSE_S)


def _catch_up(journal: Journal, position: Position) -> int:
    """Pass over what is overwritten, and over what a live reader is too late for; how much that was."""
    before = position.accepted + position.attempts + position.refused
    end = Position.end(journal)
    if end.attempts - position.attempts > BEHIND_MAX or end.accepted - position.accepted > BEHIND_MAX:
        position.attempts = max(position.attempts, end.attempts - NEAR)
        position.accepted = max(position.accepted, end.accepted - NEAR)
    position.attempts = max(position.attempts, journal.attempts_kept_from)
    position.accepted = max(position.accepted, journal.acceptances_kept_from)
    position.refused = max(position.refused, journal.refused_requests.overwritten)
    return position.accepted + position.attempts + position.refused - before


async def _entries(journal: Journal, position: Position, wanted: Wanted) -> list[Entry]:
    """Move the position over what was looked at and return what of it is wanted, at most ENTRIES_MAX."""
    found: list[_Found] = []
    scanned = Position(position.accepted, position.attempts, position.refused)
    if not wanted.failed and not wanted.subscription:
        scanned.accepted = await _accepted(journal, position.accepted, wanted, found)
    else:
        scanned.accepted = journal.accepted_events
    scanned.attempts = await _attempts(journal, position.attempts, wanted, found)
    scanned.refused = _refused(journal, position.refused, wanted, found)
    found.sort(key=lambda each: (each.moment, each.order, each.number))
    taken, left = found[:ENTRIES_MAX], found[ENTRIES_MAX:]
    first_left: dict[int, int] = {}
    for each in left:
        first_left[each.order] = min(first_left.get(each.order, each.number), each.number)
    position.accepted = first_left.get(0, scanned.accepted)
    position.attempts = first_left.get(1, scanned.attempts)
    position.refused = first_left.get(2, scanned.refused)
    return [each.entry for each in taken]


async def _accepted(journal: Journal, first: int, wanted: Wanted, found: list[_Found]) -> int:
    number, made = first, 0
    while number < journal.accepted_events and made < ENTRIES_MAX and number - first < LOOKED_AT:
        for at, acceptance in journal.numbered_acceptances(number, MADE):
            if acceptance.foreign or not acceptance.confirmed:
                continue
            if wanted.channel in {"", acceptance.channel} and wanted.type in {"", acceptance.event.type}:
                entry = _entry(journal, acceptance, "accepted", acceptance.received, data=data_document(acceptance, shown=SHOWN))
                found.append(_Found(acceptance.stored, 0, at, entry))
                made += 1
        number = min(number + MADE, journal.accepted_events)
        await asyncio.sleep(0)
    return number


async def _attempts(journal: Journal, first: int, wanted: Wanted, found: list[_Found]) -> int:
    number, made = first, 0
    events: dict[int, Acceptance | None] = {}
    now = journal.clock_time(journal.now)
    while number < journal.attempts_written and made < ENTRIES_MAX and len(events) < LOOKED_AT:
        fresh = 0
        for at in range(max(number, journal.attempts_kept_from), min(number + SCAN, journal.attempts_written)):
            number = at + 1
            record = journal.attempt(at)
            if wanted.failed and record.decision is Decision.DELIVERED:
                continue
            entry = journal.entry(record.subscriber)
            if wanted.subscription and (entry is None or entry.subscription != wanted.subscription):
                continue
            if wanted.channel and (entry is None or entry.channel != wanted.channel):
                continue
            if record.receipt not in events:
                events[record.receipt] = journal.find(record.receipt)
                fresh += 1
            acceptance = events[record.receipt]
            if acceptance is None and record.receipt and now - record.started - record.duration_s < STORING_S:
                return at
            if not wanted.type or (acceptance is not None and acceptance.event.type == wanted.type):
                found.append(_Found(record.started + record.duration_s, 1, at, _attempt(journal, record, acceptance)))
                made += 1
            if made >= ENTRIES_MAX or fresh >= MADE:
                break
        number = max(number, journal.attempts_kept_from)
        await asyncio.sleep(0)
    return number


def _attempt(journal: Journal, record: AttemptRecord, acceptance: Acceptance | None) -> Entry:
    who = journal.entry(record.subscriber)
    attempt = attempt_document(journal, record)
    ended = journal.wall_time(record.started + record.duration_s)
    if acceptance is None:
        receipt = journal.receipt_text(record.receipt) if record.receipt else ""
        return Entry(
            kind="attempt", time=moment(ended), receipt=receipt, id="", source="", type="",
            channel=who.channel if who else "", subscription=who.subscription if who else "",
            subscriber=who.uri if who else "", attempt=attempt, status=record.status,
        )  # fmt: skip
    return _entry(
        journal, acceptance, "attempt", ended, subscription=who.subscription if who else "",
        subscriber=who.uri if who else "", attempt=attempt, status=record.status,
    )  # fmt: skip


def _entry(journal: Journal, acceptance: Acceptance, kind: str, wall: float, *, data: Data | None = None, **more: Any) -> Entry:
    event = acceptance.event
    return Entry(
        kind=cast("Any", kind), time=moment(wall), receipt=journal.receipt_text(acceptance.receipt), id=event.id,
        source=event.source, type=event.type, channel=acceptance.channel, from_=acceptance.peer, data=data, **more,
    )  # fmt: skip


def _refused(journal: Journal, first: int, wanted: Wanted, found: list[_Found]) -> int:
    requests = journal.refused_requests
    total = requests.total
    if wanted.subscription or wanted.type:
        return total
    for number, refusal in _numbered(journal, first):
        if wanted.channel in {"", refusal.channel}:
            entry = Entry(
                kind="refused", time=moment(refusal.received), receipt="", id=refusal.event_id, source="", type="",
                channel=refusal.channel, from_=refusal.peer, status=refusal.status, reason=refusal.detail,
            )  # fmt: skip
            found.append(_Found(journal.clock_time(refusal.received), 2, number, entry))
    return total


def _numbered(journal: Journal, first: int) -> Iterator[tuple[int, Any]]:
    requests = journal.refused_requests
    return iter(enumerate(requests.since(first), max(first, requests.overwritten)))
