"""The ring of what was tried: packed attempts, and of those that did not simply succeed, what they say and which came before.

Records number 0, 1, 2 …; the newest overwrite the oldest.
"""

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from typing import Final

from eventing.journal.details import TEXT_MAX, Detail, Details
from eventing.journal.pages import pages
from eventing.journal.record import AttemptRecord, Decision, Rule
from eventing.observe.redaction import redacted

__all__ = ["RING_ATTEMPTS", "AttemptRing"]

# receipt, started (clock), duration s, wait s, subscriber, detail, status, attempt, limit, decision, rule, failure
_ATTEMPT: Final = struct.Struct("<QdffIQHHHBBB")
# Parts of it.
_RECEIPT: Final = struct.Struct("<Q")
_ENDED: Final = struct.Struct("<Qdf")
_TALLY: Final = struct.Struct("<24xI8xH4xBBB")
RING_ATTEMPTS: Final = 1 << 17  # 6 MB, of which the operating system gives pages as they are first used
# (event, subscriber) pairs whose failed attempts are chained to each other; beyond it the oldest chain is cut.
TRAILS: Final = 20_000
_FIRST: Final = 1
_DELIVERED: Final = int(Decision.DELIVERED)
_OPEN: Final = frozenset(set(Decision) - {Decision.DELIVERED, Decision.DEAD_LETTERED, Decision.DROPPED})


class AttemptRing:
    """Attempts at all subscribers, in the order in which they ended."""

    enabled: bool

    def __init__(self, size: int, detail_bytes: int) -> None:
        self._size = size
        self._ring = pages(_ATTEMPT.size * size)
        self._written = 0
        self._pack = _ATTEMPT.pack_into
        self._details = Details(detail_bytes)
        self._trails: dict[int, int] = {}  # receipt and subscriber → number of the last record, counted from 1

    # writing

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
        delay_s: float = 0.0,
        head: str = "",
    ) -> None:
        """One attempt and what was decided after it; attempt 0 for a decision without an attempt.

        `note` is the error, or the beginning of the answer's body, or both (details.ANSWERED); `head` the lines of the answer's
        head; `delay_s` the back-off that the policy names. All three are for what does not simply succeed; secrets in a note are
        masked."""
        if not self.enabled:
            return
        written = self._written
        self._written = written + 1
        detail = 0
        if attempt != _FIRST or decision != _DELIVERED:
            detail = self._detail(receipt, subscriber, decision, written, note, delay_s, head)
            if limit >= 0xFFFF or attempt >= 0xFFFF:
                limit, attempt = min(limit, 0xFFFF), min(attempt, 0xFFFF)
        self._pack(
            self._ring, (written % self._size) * _ATTEMPT.size, receipt, started, duration_s, wait_s, subscriber, detail, status,
            attempt, limit, decision, rule, failure,
        )  # fmt: skip

    def _detail(self, receipt: int, subscriber: int, decision: int, written: int, note: str, delay_s: float, head: str) -> int:
        """Chain the record to the one before it of the same event and subscriber, and keep what it says."""
        trails = self._trails
        key = receipt << 32 | subscriber
        previous = trails.pop(key, 0)
        if decision in _OPEN:
            trails[key] = written + 1
            if len(trails) > TRAILS:
                del trails[next(iter(trails))]
        elif decision == _DELIVERED:
            return 0
        if not (previous or note or head or delay_s):  # an overflow ends ten thousands of events a second that were never tried
            return 0
        return self._details.add(previous, delay_s, head, redacted(note, TEXT_MAX) if note else "")

    # reading

    def detail(self, record: AttemptRecord) -> Detail | None:
        """What the record says beside its numbers; None where it says nothing, or that was overwritten."""
        return self._details.read(record.detail)

    def attempts(self, first: int, count: int) -> list[AttemptRecord]:
        """Records number `first` to `first + count - 1`, counted from the process's start; those overwritten are left out."""
        return [self.attempt(number) for number in self._numbers(first, count)]

    def attempts_of(self, receipts: Collection[int], first: int, count: int) -> list[AttemptRecord]:
        """Those of `attempts` that are of these receipts."""
        unpack, ring, size = _RECEIPT.unpack_from, self._ring, self._size
        return [
            self.attempt(number)
            for number in self._numbers(first, count)
            if unpack(ring, (number % size) * _ATTEMPT.size)[0] in receipts
        ]

    def tally(self, subscriber: int, first: int, count: int, tally: Counter[tuple[int, int, int, int]]) -> int | None:
        """Count those of `attempts` that are of this subscriber, by (status, decision, rule, failure); the number of the last one
        that did not succeed."""
        unpack, ring, size = _TALLY.unpack_from, self._ring, self._size
        last = None
        for number in self._numbers(first, count):
            of, status, decision, rule, failure = unpack(ring, (number % size) * _ATTEMPT.size)
            if of == subscriber:
                tally[status, decision, rule, failure] += 1
                if decision != _DELIVERED:
                    last = number
        return last

    def attempt(self, number: int) -> AttemptRecord:
        """Record number `number`, which must not be overwritten."""
        values = _ATTEMPT.unpack_from(self._ring, (number % self._size) * _ATTEMPT.size)
        return AttemptRecord._make((*values[:9], Decision(values[9]), Rule(values[10]), values[11]))

    def trail(self, number: int) -> list[AttemptRecord]:
        """Record `number` and those before it of the same event and subscriber that did not succeed, oldest first, as far as they
        are still there."""
        found: list[AttemptRecord] = []
        while number >= self.attempts_kept_from:
            record = self.attempt(number)
            found.append(record)
            detail = self.detail(record)
            if detail is None or not detail.previous:
                break
            number = detail.previous - 1
        return found[::-1]

    def attempts_since(self, moment: float) -> int:
        """Number of the first record written at `moment` (of the loop's clock) or later: records are written when they end."""
        kept = self._numbers(0, self._written)
        return kept.start + bisect_left(kept, moment, key=self.attempt_ended)

    def attempt_ended(self, number: int) -> float:
        """When record `number` was written, on the loop's clock."""
        _, started, duration_s = _ENDED.unpack_from(self._ring, (number % self._size) * _ATTEMPT.size)
        return float(started + duration_s)

    def _numbers(self, first: int, count: int) -> range:
        lowest = max(first, self.attempts_kept_from)
        return range(lowest, max(lowest, min(first + count, self._written)))

    @property
    def attempts_written(self) -> int:
        return self._written

    @property
    def attempts_kept_from(self) -> int:
        return max(0, self._written - self._size)
