"""The journal's memory: a packed ring of attempts, and the acceptances with their events, both bounded in bytes.

Writing is on the way of every event, so it packs numbers into a preallocated ring and appends to a deque, nothing more
(reference: hot path, "journal"). Reading is for people: it works in slices and gives the loop its turn in between.
"""

import secrets
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from eventing.event import Event
from eventing.journal.record import Decision, Rule

__all__ = ["Acceptance", "AttemptRecord", "Journal", "Refusal", "SubscriberEntry"]

# receipt, started (loop time), duration µs, subscriber, wait ms, note, status, attempt, limit, decision, rule, failure
_ATTEMPT: Final = struct.Struct("<QdIIIIHHHBBB")
RING_ATTEMPTS: Final = 1 << 17  # 5.6 MB once all of it has been written to; the operating system gives pages as they are used
EVENT_BYTES: Final = 16 << 20
NOTES: Final = 4096
REFUSALS: Final = 1024
SUBSCRIBERS: Final = 20_000
# An acceptance without its event's data: the tuple, the event's attributes and head (reference: hot path, "Memory").
ACCEPTANCE_OVERHEAD: Final = 1100


class Acceptance(NamedTuple):
    """One accepted event. `due` are the subscriber numbers to which it was due."""

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
    duration_us: int
    subscriber: int
    wait_ms: int
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
        event_bytes: int = EVENT_BYTES,
        enabled: bool = True,
    ) -> None:
        self.enabled = enabled
        self.prefix = secrets.token_hex(4)
        self.overwritten_attempts = 0
        self.overwritten_events = 0
        self._wall = wall
        self._clock = clock
        self._receipts = 0
        self._size = attempts
        self._ring = bytearray(_ATTEMPT.size * attempts)
        self._written = 0
        self._pack = _ATTEMPT.pack_into
        self._acceptances: deque[Acceptance] = deque()
        self._event_bytes = 0
        self._event_bytes_max = event_bytes
        self._notes: dict[int, str] = {}
        self._note_number = 0
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS)
        self._subscribers: dict[int, SubscriberEntry] = {}
        self._subscriber_number = 0

    # writing

    def next_receipt(self) -> int:
        self._receipts += 1
        return self._receipts

    def accepted(self, event: Event, channel: str, peer: str, due: tuple[int, ...]) -> None:
        """The event is stored; `event.receipt` is its number."""
        if not self.enabled:
            return
        self._acceptances.append(Acceptance(event.receipt, self._wall(), peer, channel, event, due))
        self._event_bytes += len(event.data) + ACCEPTANCE_OVERHEAD
        while self._event_bytes > self._event_bytes_max:
            oldest = self._acceptances.popleft()
            self._event_bytes -= len(oldest.event.data) + ACCEPTANCE_OVERHEAD
            self.overwritten_events += 1

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
        if written >= self._size:
            self.overwritten_attempts += 1
        self._pack(
            self._ring,
            (written % self._size) * _ATTEMPT.size,
            receipt,
            started,
            min(int(duration_s * 1e6), 0xFFFFFFFF),
            subscriber,
            min(int(wait_s * 1e3), 0xFFFFFFFF),
            self._add_note(note) if note else 0,
            status,
            min(attempt, 0xFFFF),
            min(limit, 0xFFFF),
            decision,
            rule,
            failure,
        )

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

    def acceptances(self) -> tuple[Acceptance, ...]:
        """Those kept, oldest first. A copy of references: 100,000 take about a millisecond."""
        return tuple(self._acceptances)

    def attempts(self, first: int, count: int) -> list[AttemptRecord]:
        """Records number `first` to `first + count - 1`, counted from the process's start; those overwritten are left out."""
        lowest = max(first, self._written - self._size, 0)
        records = []
        for number in range(lowest, min(first + count, self._written)):
            values = _ATTEMPT.unpack_from(self._ring, (number % self._size) * _ATTEMPT.size)
            records.append(AttemptRecord._make((*values[:9], Decision(values[9]), Rule(values[10]), values[11])))
        return records

    @property
    def attempts_written(self) -> int:
        return self._written

    @property
    def attempts_kept_from(self) -> int:
        return max(0, self._written - self._size)
