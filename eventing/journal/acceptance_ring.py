"""The ring of what came: packed acceptances, and the bytes of their events.

An acceptance says which event came, when, from whom, and to whom it was due. It is also written of an event of a durable channel
that another process accepted, when a subscription meets it here.
"""

import itertools
import secrets
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from eventing.bindings.http import binary_head, event_head, payload
from eventing.bindings.json_format import decode_structured
from eventing.event import Event
from eventing.journal.acceptance import (
    ACCEPTANCE,
    FLAGS_AT,
    FOREIGN,
    PEER_MASK,
    STRUCTURED,
    UNCONFIRMED,
    Acceptance,
    Arrival,
    event_of,
)
from eventing.journal.foreign import Foreign, LateReceipts, origin_of
from eventing.journal.pages import pages
from eventing.journal.places import Place, Places

__all__ = ["EVENT_BYTES", "RING_ACCEPTANCES", "AcceptanceRing"]

# The operating system gives pages as they are first used: an idle process pays for none of these.
RING_ACCEPTANCES: Final = 1 << 16  # 3 MB
EVENT_BYTES: Final = 16 << 20
# Receipts are given before an event is stored: where storing takes time, they are recorded out of order, and so much around the
# place where a record should be is looked at, at least and at most.
_DISORDER: Final = 256
_DISORDER_MAX: Final = 1024


class AcceptanceRing:
    """Acceptances number 0, 1, 2 …, each findable by its receipt, as far as they are not overwritten."""

    enabled: bool

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float], size: int, event_bytes: int) -> None:
        self.prefix = secrets.token_hex(4)
        self.places = Places(wall)
        self._wall = wall
        self._clock = clock
        self.next_receipt: Callable[[], int] = itertools.count(1).__next__
        self._index = pages(ACCEPTANCE.size * size)
        self._index_size = size
        self._accepted = 0
        self._bytes = pages(event_bytes)
        self._bytes_size = event_bytes
        self._bytes_written = 0  # never wraps; what begins before this less the size is overwritten
        self._pack_acceptance = ACCEPTANCE.pack_into
        self._foreign = Foreign()
        self._late = LateReceipts(size)
        self._newest_receipt = 0  # of those before which one was recorded late
        self._disorder = _DISORDER

    # writing

    def accepted(self, event: Event, place: int, peer: bytes) -> None:
        """The event is stored; `event.receipt` is its number."""
        if not self.enabled:
            return
        if place < 0:
            head, body, structured = binary_head(event), b"", False
        else:
            head, body, structured = event.wire or event_head(event), payload(event), event.structured is not None
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
            (number % self._index_size) * ACCEPTANCE.size,
            event.receipt, self._clock(), hash(event.raw_id), at, len(peer), len(head),
            length | STRUCTURED if structured else length, place,
        )  # fmt: skip

    def stored_after(self, events: int, waited_s: float, *, confirmed: bool = True) -> None:
        """The channel took `waited_s` seconds over the last `events` that were `accepted`: they came so much earlier. Not
        `confirmed`: it did not say whether they are stored."""
        for number in range(self._accepted - events, self._accepted) if self.enabled else ():
            self._amend(number, waited_s, 0 if confirmed else UNCONFIRMED)

    def adopted(self, event: Event, subscriber: int, origin: str) -> int:
        """The receipt here of an event that a subscriber has met in its channel, accepted by another process, or by this one so
        long ago that it is forgotten. `origin` is the text of the receipt that it was accepted with, "" where it has none."""
        if origin:
            origin = origin_of(origin)
            process, _, number = origin.partition("-")
            if process == self.prefix and self.knows(int(number)):
                return int(number)
        if not self.enabled:
            return self.next_receipt()
        if origin:
            known = self._foreign.met(origin, subscriber)
            if known is not None:
                return known
        receipt = event.receipt = self.next_receipt()
        record = self._accepted
        self.accepted(event, self.places.place_of(subscriber), origin.encode())
        self._index[record % self._index_size * ACCEPTANCE.size + FLAGS_AT] |= FOREIGN >> 8
        self._late.add(receipt, record, subscriber)
        self._newest_receipt = receipt  # it was given just now
        if origin:
            self._foreign.add(receipt, origin, subscriber)
        return receipt

    def _amend(self, number: int, waited_s: float, flags: int) -> None:
        """Complete the record of an acceptance that is not of the plain kind."""
        at = (number % self._index_size) * ACCEPTANCE.size
        receipt, received, id_hash, begin, peer, head, body, place = ACCEPTANCE.unpack_from(self._index, at)
        self._pack_acceptance(self._index, at, receipt, received - waited_s, id_hash, begin, peer | flags, head, body, place)
        self._late.add(receipt, number)
        if number:
            self._newest_receipt = max(self._newest_receipt, self._acceptance_values(number - 1)[0])
            self._disorder = max(self._disorder, min(2 * (self._newest_receipt - receipt), _DISORDER_MAX))

    def knows(self, receipt: int) -> bool:
        """Whether an acceptance of this process is there, or is to come: its channel has not confirmed it yet."""
        if not self._accepted or self.number_of(receipt) is not None:
            return True
        kept_from = self.acceptances_kept_from
        return not kept_from or (kept_from < self._accepted and receipt >= self._acceptance_values(kept_from)[0])

    # reading

    def receipt_text(self, receipt: int) -> str:
        """The text of a receipt: of an event that was accepted elsewhere, what its producer got there."""
        if self._foreign:
            origin = self._foreign.origin(receipt)
            if origin is None and (number := self.number_of(receipt)) is not None:
                _, _, _, at, peer, _, _, _ = self._acceptance_values(number)
                origin = self._text(at, peer & PEER_MASK) if peer & FOREIGN else ""
            if origin:
                return origin
        return f"{self.prefix}-{receipt}"

    def wall_time(self, clock_time: float) -> float:
        """The calendar's time of a moment on the loop's clock."""
        return self._wall() - (self._clock() - clock_time)

    def clock_time(self, wall_time: float) -> float:
        """The loop's clock at a moment of the calendar."""
        return self._clock() - (self._wall() - wall_time)

    @property
    def accepted_events(self) -> int:
        return self._accepted

    @property
    def acceptances_kept_from(self) -> int:
        """Number of the oldest acceptance whose event is still there: how many are gone."""
        oldest = max(0, self._accepted - self._index_size)
        held_from = self._bytes_written - self._bytes_size
        if held_from <= 0 or oldest == self._accepted:
            return oldest
        kept = range(oldest, self._accepted)
        return oldest + bisect_left(kept, held_from, key=lambda number: int(self._acceptance_values(number)[3]))

    def _acceptance_values(self, number: int) -> tuple[int, float, int, int, int, int, int, int]:
        values: tuple[int, float, int, int, int, int, int, int] = ACCEPTANCE.unpack_from(
            self._index, (number % self._index_size) * ACCEPTANCE.size
        )
        return values

    def acceptances(self, first: int, count: int, query: str) -> list[Acceptance]:
        """Those of number `first` to `first + count - 1` that are of an event with this id, or were accepted elsewhere with this
        receipt."""
        found = []
        raw = query.encode(errors="replace")
        wanted, foreign = hash(raw), len(raw) | FOREIGN if origin_of(query) else -1
        for number in self._acceptance_numbers(first, count):
            values = self._acceptance_values(number)
            if values[2] == wanted or (values[4] == foreign and self._text(values[3], len(raw)) == query):
                acceptance = self._acceptance(*values)
                if acceptance is not None and query in {acceptance.event.attributes["id"], acceptance.origin}:
                    found.append(acceptance)
        return found

    def numbered_acceptances(self, first: int, count: int) -> list[tuple[int, Acceptance]]:
        """Those of number `first` to `first + count - 1`, with their numbers."""
        return [
            (number, acceptance)
            for number in self._acceptance_numbers(first, count)
            if (acceptance := self._acceptance(*self._acceptance_values(number))) is not None
        ]

    def accepted_at(self, channel: str, first: int, count: int) -> int:
        """How many of number `first` to `first + count - 1` the channel took of this process."""
        places = self.places.of(channel)
        values = (self._acceptance_values(number) for number in self._acceptance_numbers(first, count))
        return sum(each[7] in places and each[4] <= PEER_MASK for each in values)

    def _acceptance_numbers(self, first: int, count: int) -> range:
        lowest = max(first, self.acceptances_kept_from)
        return range(lowest, max(lowest, min(first + count, self._accepted)))

    def find(self, receipt: int) -> Acceptance | None:
        """The acceptance of this receipt; None where it is gone, or never was."""
        number = self.number_of(receipt)
        return None if number is None else self._acceptance(*self._acceptance_values(number))

    def arrival(self, receipt: int) -> Arrival | None:
        """How the event of this receipt came; None where its record is gone."""
        number = self.number_of(receipt)
        if number is None:
            return None
        _, stored, _, at, peer, _, _, place = self._acceptance_values(number)
        return Arrival(stored, self._text(at, peer & PEER_MASK), self.places.place(place), peer & ~PEER_MASK)

    def _text(self, at: int, length: int) -> str:
        """What stands before an event's head in the ring of bytes."""
        offset = at % self._bytes_size
        return bytes(self._bytes[offset : offset + length]).decode()

    def number_of(self, receipt: int) -> int | None:
        """The number of the acceptance of this receipt."""
        newest = self._accepted - 1
        if newest >= 0:  # numbers and receipts run side by side but for events that were not stored
            number = newest - (self._acceptance_values(newest)[0] - receipt)
            if max(0, self._accepted - self._index_size) <= number <= newest:
                values = self._acceptance_values(number)
                if values[0] == receipt and values[3] >= self._bytes_written - self._bytes_size:
                    return number
        if self._late.any and (late := self._late.number(receipt)) is not None:
            return late if late >= self.acceptances_kept_from else None
        kept = range(self.acceptances_kept_from, self._accepted)
        near = kept.start + bisect_left(kept, receipt, key=lambda number: self._acceptance_values(number)[0])
        for distance in range(self._disorder):
            for number in {near + distance, near - distance}:
                if number in kept and self._acceptance_values(number)[0] == receipt:
                    return number
        return None

    def accepted_since(self, moment: float) -> int:
        """Number of the first acceptance received at `moment` (of the loop's clock) or later."""
        kept = range(self.acceptances_kept_from, self._accepted)
        return kept.start + bisect_left(kept, moment, key=lambda number: self._acceptance_values(number)[1])

    def channel_of(self, number: int) -> tuple[str, float]:
        """The channel that took acceptance `number`, and when, on the loop's clock."""
        values = self._acceptance_values(number)
        return self.places.place(values[7]).channel, values[1]

    def _acceptance(
        self, receipt: int, received: float, _hash: int, at: int, peer: int, head: int, body: int, place_number: int
    ) -> Acceptance | None:
        """The record with its event made again from its bytes; None where those are gone."""
        structured, body = bool(body & STRUCTURED), body & ~STRUCTURED
        flags, peer = peer & ~PEER_MASK, peer & PEER_MASK
        if at < self._bytes_written - self._bytes_size or (structured and not body):
            return None  # overwritten, or never written: larger than all of the ring
        offset = at % self._bytes_size
        record = bytes(self._bytes[offset : offset + peer + head + body])
        lines, data = record[peer : peer + head], record[peer + head :]
        event = decode_structured(data) if structured else event_of(lines, data)
        event.receipt = receipt
        place: Place = self.places.place(place_number)
        kept = place.data and (structured or b"content-length: %d\r\n" % body in lines)
        text = record[:peer].decode()
        if flags & FOREIGN:
            due = self._foreign.subscribers(receipt) if text else self._late.subscribers(receipt)
            return Acceptance(receipt, self.wall_time(received), received, "", place.channel, event, due, kept, True, text)
        return Acceptance(
            receipt, self.wall_time(received), received, text, place.channel, event, place.due, kept,
            confirmed=not flags & UNCONFIRMED,
        )  # fmt: skip
