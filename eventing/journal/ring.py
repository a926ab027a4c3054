"""The journal's memory: packed rings of acceptances, of their events' bytes, and of attempts, all bounded.

Writing is on the way of every event, so it packs numbers and copies bytes into preallocated rings, one after the other, and keeps
no object alive: an event that was held here for minutes would make each new one use cold memory, which cost more than all the
rest of the journal. Reading is for people: it works in slices and gives the loop its turn in between.
"""

import itertools
import secrets
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from eventing.bindings.http import HeaderNames, decode, event_head, payload
from eventing.bindings.json_format import decode_structured
from eventing.event import Event
from eventing.journal.record import Decision, Rule

__all__ = ["Acceptance", "AttemptRecord", "Journal", "Refusal", "SubscriberEntry"]

# receipt, received (wall clock), hash of the event's id, place of its bytes, their lengths: peer, head, payload; place number
_ACCEPTANCE: Final = struct.Struct("<QdqQHIII")
_STRUCTURED: Final = 1 << 31  # set in the length of the payload of a structured event
# receipt, started (clock), duration s, wait s, subscriber, note, status, attempt, limit, decision, rule, failure
_ATTEMPT: Final = struct.Struct("<QdffIIHHHBBB")
# The operating system gives pages as they are first used: an idle process pays for none of these.
RING_ATTEMPTS: Final = 1 << 17  # 5.4 MB
RING_ACCEPTANCES: Final = 1 << 16  # 3 MB
EVENT_BYTES: Final = 16 << 20
NOTES: Final = 4096
REFUSALS: Final = 1024
SUBSCRIBERS: Final = 20_000
PLACES: Final = 4096  # that are used no more


class Acceptance(NamedTuple):
    """One accepted event, unpacked. `due` are the subscriber numbers to which it was due."""

    receipt: int
    received: float  # wall clock, seconds
    peer: str
    channel: str
    event: Event
    due: tuple[int, ...]


class AttemptRecord(NamedTuple):
    """One record of the ring, unpacked. Attempt 0: no attempt was made, only the decision."""

    receipt: int
    started: float
    duration_s: float
    wait_s: float
    subscriber: int
    note: int
    status: int
    attempt: int
    limit: int
    decision: Decision
    rule: Rule
    failure: int


@dataclass(frozen=True, slots=True)
class SubscriberEntry:
    """Who a subscriber number stands for."""

    subscription: str  # NS/NAME
    uid: str
    uri: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not accepted."""

    received: float
    peer: str
    channel: str
    event_id: str
    status: int
    detail: str


class Journal:
    """The journal of one data-plane process.

    `clock` is the loop's clock, in which attempts are timed; `wall` the calendar's. Receipts are numbers within the process,
    shown with the process's own random prefix so that they are unique across processes and restarts.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        attempts: int = RING_ATTEMPTS,
        acceptances: int = RING_ACCEPTANCES,
        event_bytes: int = EVENT_BYTES,
        enabled: bool = True,
    ) -> None:
        self.enabled = enabled
        self.prefix = secrets.token_hex(4)
        self._wall = wall
        self._clock = clock
        self.next_receipt: Callable[[], int] = itertools.count(1).__next__
        self._size = attempts
        self._ring = bytearray(_ATTEMPT.size * attempts)
        self._written = 0
        self._pack = _ATTEMPT.pack_into
        self._index = bytearray(_ACCEPTANCE.size * acceptances)
        self._index_size = acceptances
        self._accepted = 0
        self._bytes = bytearray(event_bytes)
        self._bytes_size = event_bytes
        self._bytes_written = 0  # never wraps; what begins before this less the size is overwritten
        self._pack_acceptance = _ACCEPTANCE.pack_into
        self._places: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._past_places: deque[int] = deque()
        self._place_number = 0
        self._notes: dict[int, str] = {}
        self._note_number = 0
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS)
        self._subscribers: dict[int, SubscriberEntry] = {}
        self._subscriber_number = 0

    # writing

    def place(self, channel: str, due: tuple[int, ...]) -> int:
        """A number for a channel and the subscribers to which its events are due, to be used in `accepted` from now on."""
        self._place_number += 1
        self._places[self._place_number] = (channel, due)
        return self._place_number

    def forget_place(self, number: int) -> None:
        """The number is used no more; what was accepted under it is still to be read for a while."""
        if number in self._places:
            self._past_places.append(number)
            if len(self._past_places) > PLACES:
                del self._places[self._past_places.popleft()]

    def accepted(self, event: Event, place: int, peer: bytes) -> None:
        """The event is stored; `event.receipt` is its number."""
        if not self.enabled:
            return
        head = event.wire or event_head(event)
        body = payload(event)
        record = b"".join((peer, head, body))
        size = len(record)
        limit = self._bytes_size
        at = self._bytes_written
        offset = at % limit
        length = len(body)
        if size > limit:
            record, size, length = record[: len(peer) + len(head)], len(peer) + len(head), 0
        if offset + size > limit:  # a record is never split: the rest of the ring stays empty this time
            at += limit - offset
            offset = 0
        self._bytes[offset : offset + size] = record
        self._bytes_written = at + size
        number = self._accepted
        self._accepted = number + 1
        self._pack_acceptance(
            self._index,
            (number % self._index_size) * _ACCEPTANCE.size,
            event.receipt, self._wall(), hash(event.raw_id), at, len(peer), len(head),
            length if event.structured is None else length | _STRUCTURED, place,
        )  # fmt: skip

    def attempted(
        self,
        receipt: int,
        subscriber: int,
        attempt: int,
        started: float,
        duration_s: float,
        status: int,
        decision: int,
        rule: int,
        limit: int = 0,
        wait_s: float = 0.0,
        failure: int = 0,
        note: str = "",
    ) -> None:
        """One attempt and what was decided after it; attempt 0 for a decision without an attempt."""
        if not self.enabled:
            return
        written = self._written
        self._written = written + 1
        number = self._add_note(note) if note else 0
        at = (written % self._size) * _ATTEMPT.size
        if limit >= 0xFFFF:
            limit, attempt = 0xFFFF, min(attempt, 0xFFFF)
        self._pack(
            self._ring, at, receipt, started, duration_s, wait_s, subscriber, number, status, attempt, limit, decision, rule,
            failure,
        )  # fmt: skip

    def _add_note(self, note: str) -> int:
        self._note_number += 1
        self._notes[self._note_number] = note[:300]
        self._notes.pop(self._note_number - NOTES, None)
        return self._note_number & 0xFFFFFFFF

    def refused(self, peer: str, channel: str, event_id: str, status: int, detail: str) -> None:
        """A request was answered with an error; nothing was stored."""
        self._refusals.append(Refusal(self._wall(), peer, channel, event_id, status, detail[:300]))

    def subscriber(self, subscription: str, uid: str, uri: str) -> int:
        """A number for a subscriber, to be used in records from now on."""
        self._subscriber_number += 1
        self._subscribers[self._subscriber_number] = SubscriberEntry(subscription, uid, uri)
        self._subscribers.pop(self._subscriber_number - SUBSCRIBERS, None)
        return self._subscriber_number

    def rename(self, number: int, subscription: str, uid: str, uri: str) -> None:
        """The subscriber of this number has another address now."""
        self._subscribers[number] = SubscriberEntry(subscription, uid, uri)

    # reading

    def receipt_text(self, receipt: int) -> str:
        return f"{self.prefix}-{receipt}"

    def wall_time(self, clock_time: float) -> float:
        """The calendar's time of a moment on the loop's clock."""
        return self._wall() - (self._clock() - clock_time)

    def entry(self, subscriber: int) -> SubscriberEntry | None:
        return self._subscribers.get(subscriber)

    def note(self, number: int) -> str:
        return self._notes.get(number, "") if number else ""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        return tuple(self._refusals)

    @property
    def accepted_events(self) -> int:
        return self._accepted

    @property
    def acceptances_kept_from(self) -> int:
        return max(0, self._accepted - self._index_size)

    @property
    def overwritten_events(self) -> int:
        """How many acceptances are gone, at least."""
        return self.acceptances_kept_from

    def acceptances(self, first: int, count: int, *, receipt: int, event_id: str) -> list[Acceptance]:
        """Those of number `first` to `first + count - 1` that have this receipt or are of an event with this id."""
        found = []
        wanted = hash(event_id.encode())
        for number in range(max(first, self.acceptances_kept_from), min(first + count, self._accepted)):
            values = _ACCEPTANCE.unpack_from(self._index, (number % self._index_size) * _ACCEPTANCE.size)
            if values[0] != receipt and values[2] != wanted:
                continue
            acceptance = self._acceptance(*values)
            if acceptance is not None and (values[0] == receipt or acceptance.event.attributes["id"] == event_id):
                found.append(acceptance)
        return found

    def _acceptance(
        self, receipt: int, received: float, _hash: int, at: int, peer: int, head: int, body: int, place: int
    ) -> Acceptance | None:
        """The record with its event made again from its bytes; None where those are gone."""
        structured, body = bool(body & _STRUCTURED), body & ~_STRUCTURED
        if at < self._bytes_written - self._bytes_size or (structured and not body):
            return None  # overwritten, or never written: larger than all of the ring
        offset = at % self._bytes_size
        record = bytes(self._bytes[offset : offset + peer + head + body])
        data = record[peer + head :]
        if structured:
            event = decode_structured(data)
        else:
            names = HeaderNames()
            lines = [line.partition(b": ") for line in record[peer : peer + head].split(b"\r\n") if line]
            (event,) = decode([(names[name], value) for name, _, value in lines], data)
        event.receipt = receipt
        channel, due = self._places.get(place, ("", ()))
        return Acceptance(receipt, received, record[:peer].decode(), channel, event, due)

    def attempts(self, first: int, count: int) -> list[AttemptRecord]:
        """Records number `first` to `first + count - 1`, counted from the process's start; those overwritten are left out."""
        lowest = max(first, self._written - self._size, 0)
        records = []
        for number in range(lowest, min(first + count, self._written)):
            values = _ATTEMPT.unpack_from(self._ring, (number % self._size) * _ATTEMPT.size)
            records.append(AttemptRecord._make((*values[:9], Decision(values[9]), Rule(values[10]), values[11])))
        return records

    @property
    def overwritten_attempts(self) -> int:
        return max(0, self._written - self._size)

    @property
    def attempts_written(self) -> int:
        return self._written

    @property
    def attempts_kept_from(self) -> int:
        return max(0, self._written - self._size)
