"""The journal's memory: packed rings of acceptances, of their events' bytes, and of attempts, all bounded.

Writing is on the way of every event, so it packs numbers and copies bytes into preallocated rings, one after the other, and keeps
no object alive: an event that was held here for minutes would make each new one use cold memory, which cost more than all the
rest of the journal. Reading is for people: it works in slices and gives the loop its turn in between.

The two rings are base classes, not parts: a part would cost one more look-up for each of the two writes per delivery.
"""

from collections.abc import Callable

from eventing.event import Event
from eventing.journal.acceptance_ring import EVENT_BYTES, RING_ACCEPTANCES, AcceptanceRing
from eventing.journal.attempt_ring import RING_ATTEMPTS, AttemptRing
from eventing.journal.details import DETAIL_BYTES
from eventing.journal.places import SubscriberEntry
from eventing.journal.refusals import Refusal, Refusals

__all__ = ["Journal"]


class Journal(AcceptanceRing, AttemptRing):
    """The journal of one data-plane process.

    `clock` is the loop's clock, in which attempts are timed; `wall` the calendar's. Receipts are numbers within the process,
    shown with the process's own random prefix so that they are unique across processes and restarts. `on_failure` is called with
    the event, the subscriber, the number of the record (from 0) and what waits for it when an event ends otherwise than by
    delivery.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        attempts: int = RING_ATTEMPTS,
        acceptances: int = RING_ACCEPTANCES,
        event_bytes: int = EVENT_BYTES,
        detail_bytes: int = DETAIL_BYTES,
        enabled: bool = True,
    ) -> None:
        AcceptanceRing.__init__(self, clock, wall, acceptances, event_bytes)
        AttemptRing.__init__(self, attempts, detail_bytes)
        self.enabled = enabled
        self.started = wall()
        self.on_failure: Callable[[Event, int, int, Callable[[], None] | None], None] | None = None
        self.failures_written = 0  # counted by whoever writes them to disk
        self.failures_lost = 0
        self.refused_requests = Refusals(wall)

    def place(self, channel: str, due: tuple[int, ...], *, data: bool = True) -> int:
        """A number for a channel and the subscribers to which its events are due, to be used in `accepted` from now on. `data`:
        whether the data of its events is kept."""
        return self.places.add(channel, due, data=data)

    def forget_place(self, number: int) -> None:
        """The number is used no more; what was accepted under it is still to be read for a while."""
        self.places.forget(number)

    def close_place(self, number: int) -> None:
        """The same, and its channel is gone: what has no end at one of its subscribers is dropped with it."""
        self.places.close(number)

    def ended(
        self,
        event: Event,
        subscriber: int,
        started: float,
        duration_s: float,
        status: int,
        decision: int,
        rule: int,
        *,
        attempt: int = 0,
        note: str = "",
        head: str = "",
        then: Callable[[], None] | None = None,
    ) -> None:
        """The event has ended at this subscriber otherwise than by delivery: dead-lettered or dropped.

        `then` is called once that is on the disk, synchronised, if failures are recorded there at all; else at once."""
        record = self._written
        self.attempted(event.receipt, subscriber, attempt, started, duration_s, status, decision, rule, note=note, head=head)
        if self.on_failure is not None and self.enabled:
            self.on_failure(event, subscriber, record, then)
        elif then is not None:
            then()

    def refused(self, peer: str, channel: str, event_id: str, status: int, detail: str) -> None:
        """A request was answered with an error; nothing was stored."""
        self.refused_requests.add(peer, channel, event_id, status, detail)

    def subscriber(self, subscription: str, uid: str, uri: str) -> int:
        """A number for a subscriber, to be used in records from now on."""
        return self.places.subscriber(subscription, uid, uri)

    def rename(self, number: int, subscription: str, uid: str, uri: str) -> None:
        """The subscriber of this number has another address now."""
        self.places.rename(number, subscription, uid, uri)

    @property
    def now(self) -> float:
        """The calendar's time, in seconds."""
        return self._wall()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        return self.refused_requests.kept

    def entry(self, subscriber: int) -> SubscriberEntry | None:
        return self.places.entry(subscriber)
