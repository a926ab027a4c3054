"""One reference-counted log per channel, a cursor per subscription.

The log is a singly linked list of records. A cursor holds the last record it has handed out, so a record lives exactly as
long as some cursor has still to pass it: Python's reference counts are the log's. Publishing costs one record whatever the
number of subscriptions; a subscription that is up to date costs a wake-up.

Bounds (docs/architecture.md, "Channels"): each cursor may lag by `max_events` or `max_bytes`; beyond it that subscription's
oldest event that is not being attempted is evicted with reason Overflow. With the annotation
`eventing-mesh.dev/overflow: refuse` the publisher gets ChannelFullError instead; otherwise it gets that only when the
process-wide byte budget is gone.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Final

from eventing.channels import Budget, Capabilities, Consumer, Lag, Lease, Order, wanted_order
from eventing.errors import ChannelFullError, ChannelUnavailableError, EventTooLargeError
from eventing.event import Event
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber

__all__ = ["MAX_BYTES", "MAX_EVENTS", "OVERFLOW_ANNOTATION", "MemoryChannel"]

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 16 << 20
OVERFLOW_ANNOTATION: Final = "eventing-mesh.dev/overflow"  # drop-oldest (default) | refuse
# What an event weighs besides its data: attributes, head, record. Measured at 0.5 KB of data: 1,376 B in all.
EVENT_OVERHEAD: Final = 880

_ORDERS: Final = frozenset({Order.NONE, Order.SUBSCRIPTION})


class Record:
    """One stored event. `number` counts from 1; `end` is the number of bytes stored up to and including it."""

    __slots__ = ("end", "event", "following", "number", "size", "stored")

    def __init__(self, event: Event, number: int, size: int, end: int, stored: float) -> None:
        self.event = event
        self.number = number
        self.size = size
        self.end = end
        self.stored = stored
        self.following: Record | None = None


class MemoryLease(Lease):
    """A lease on a record. It must not hold the record itself: that would keep every later one alive too."""

    __slots__ = ("number", "size")

    def __init__(self, event: Event, number: int, size: int, stored: float) -> None:
        self.event = event
        self.stored = stored
        self.deliveries = 0
        self.expires = None
        self.note = b""
        self.lost = False
        self.number = number
        self.size = size


class MemoryChannel:
    """The open channel. Everything happens in the calls; there is no task."""

    def __init__(
        self,
        channel: Object,
        *,
        budget: Budget,
        clock: Callable[[], float],
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.capabilities = Capabilities(
            durable=False, orders=_ORDERS, replay=False, atomic_batch=True, max_event_bytes=max_bytes - EVENT_OVERHEAD
        )
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.clock = clock
        self.tail = Record(Event({}), 0, 0, 0, clock())
        self._budget = budget
        self._cursors: dict[str, MemoryCursor] = {}
        self._sleeping: list[MemoryCursor] = []
        self._counted = 0  # this channel's share of the budget
        self._closed = False
        self._refuse = False
        # Up to these counts of the log no cursor can be beyond its bound; so a publish compares two numbers and is done.
        self._clear_number = max_events
        self._clear_end = max_bytes
        # Beyond half of its bound at the last look at all cursors: looked at on each publish until the next look at all.
        self._near: list[MemoryCursor] = []
        self._scan_number = max_events // 2
        self._scan_end = max_bytes // 2
        budget.join(self._recount)
        self.configure(channel)

    def configure(self, channel: Object) -> None:
        annotations = channel["metadata"].get("annotations") or {}
        self._refuse = annotations.get(OVERFLOW_ANNOTATION) == "refuse"

    def publish(self, events: Sequence[Event]) -> asyncio.Future[None] | None:
        if self._closed:
            raise ChannelUnavailableError("the channel is closed")
        if not self._cursors:
            return None  # due to nobody
        total = 0
        for event in events:
            total += len(event.data) + EVENT_OVERHEAD
            if event.structured:
                total += len(event.structured)
        if total > self.max_bytes or len(events) > self.max_events:
            raise EventTooLargeError(f"{total} bytes do not fit the channel's bound of {self.max_bytes} bytes")
        budget = self._budget
        if budget.used + total > budget.limit and not budget.admits(total):
            raise ChannelFullError(f"all channels together hold {budget.used} bytes, the limit is {budget.limit}")
        tail = self.tail
        if tail.number + len(events) > self._clear_number or tail.end + total > self._clear_end:
            self._make_room(len(events), total)
        now = self.clock()
        if len(events) == 1:
            tail.following = self.tail = Record(event, tail.number + 1, total, tail.end + total, now)
        else:
            for event in events:
                size = len(event.data) + (len(event.structured) if event.structured else 0) + EVENT_OVERHEAD
                tail.following = tail = Record(event, tail.number + 1, size, tail.end + size, now)
            self.tail = tail
        budget.used += total
        self._counted += total
        if self._sleeping:
            sleeping, self._sleeping = self._sleeping, []
            for cursor in sleeping:
                cursor.wake()
        return None

    def _recount(self) -> None:
        """Take off the budget what every cursor has passed and let go of."""
        held = max((cursor.held_bytes for cursor in self._cursors.values()), default=0)
        self._budget.used += held - self._counted
        self._counted = held

    def _make_room(self, count: int, size: int) -> None:
        """Bring every cursor within its bound, or refuse the batch: an event is admitted for all or for none."""
        tail = self.tail
        if tail.number + count > self._scan_number or tail.end + size > self._scan_end:
            half_events, half_bytes = self.max_events // 2, self.max_bytes // 2
            self._near = [c for c in self._cursors.values() if c.exceeds(count, size, half_events, half_bytes)]
            self._scan_number = tail.number + half_events
            self._scan_end = tail.end + half_bytes
        over = [cursor for cursor in self._near if cursor.exceeds(count, size, self.max_events, self.max_bytes)]
        if over and self._refuse:
            raise ChannelFullError("a subscription is behind by the channel's bound, and the channel refuses on overflow")
        for cursor in over:
            while cursor.exceeds(count, size, self.max_events, self.max_bytes) and cursor.evict("Overflow"):
                pass
        self._clear_number = 0 if self._near else self._scan_number
        self._clear_end = 0 if self._near else self._scan_end

    def order(self, subscriber: Subscriber) -> Order:
        return wanted_order(subscriber, self.capabilities)

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> "MemoryCursor":
        uid = subscriber.uid
        if uid in self._cursors:
            raise ValueError(f"subscription {uid} is attached already")
        cursor = MemoryCursor(self, uid, consumer)
        cursor.reorder(order)
        self._cursors[uid] = cursor
        self._sleeping.append(cursor)
        return cursor

    def detached(self, uid: str, cursor: "MemoryCursor") -> None:
        del self._cursors[uid]
        self._near = [near for near in self._near if near is not cursor]
        self._sleeping = [sleeping for sleeping in self._sleeping if sleeping is not cursor]

    def sleeps(self, cursor: "MemoryCursor") -> None:
        """The cursor found the log empty: the next publish wakes it."""
        self._sleeping.append(cursor)

    async def aclose(self, deadline: float) -> None:
        for cursor in list(self._cursors.values()):
            await cursor.detach(deadline)
        if not self._closed:
            self._closed = True
            self._recount()
            self._budget.leave(self._recount)


class MemoryCursor:
    """A place in the log, and what is out, given back or deferred."""

    def __init__(self, channel: MemoryChannel, uid: str, consumer: Consumer) -> None:
        self._channel = channel
        self._uid = uid
        self._consumer = consumer
        self._ordered = False
        self._place = channel.tail  # the last record handed out
        self._out: dict[int, MemoryLease] = {}  # leases with the consumer, by record number
        self._back: list[tuple[int, MemoryLease]] = []  # due again: a heap by record number
        self._deferred: list[tuple[float, int, MemoryLease]] = []  # a heap by time
        self._held_events = 0  # out, back and deferred
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asleep = True
        self._paused = False
        self._detached = False

    def take(self, most: int) -> list[MemoryLease]:
        if (self._asleep and not self._back) or self._paused or self._detached:
            return []
        leases: list[MemoryLease] = []
        if self._ordered:
            if self._out or self._deferred:
                return leases  # C-20; `settle` and the timer wake
            most = min(most, 1)
        out = self._out
        while self._back and most > 0:
            number, lease = heapq.heappop(self._back)
            out[number] = lease
            leases.append(lease)
            most -= 1
        place = self._place
        while most > 0:
            following = place.following
            if following is None:
                if not self._asleep:
                    self._asleep = True
                    self._channel.sleeps(self)
                break
            place = following
            number, size = place.number, place.size
            out[number] = lease = MemoryLease(place.event, number, size, place.stored)
            self._held_events += 1
            self._held_bytes += size
            leases.append(lease)
            most -= 1
        self._place = place
        return leases

    def wake(self) -> None:
        self._asleep = False
        if not self._paused:
            self._consumer.wake()

    def _wake_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._consumer.wake)

    def _ends(self, lease: MemoryLease) -> bool:
        """Whether the lease was live; it is not any more."""
        number = lease.number
        if self._out.get(number) is not lease:
            return False
        del self._out[number]
        return True

    def settle(self, lease: MemoryLease) -> bool:
        number = lease.number
        if self._out.get(number) is not lease:
            return False
        del self._out[number]
        self._held_events -= 1
        self._held_bytes -= lease.size
        if self._ordered:
            self._wake_soon()
        return True

    def release(self, lease: MemoryLease) -> bool:
        number = lease.number
        if not self._ends(lease):
            return False
        heapq.heappush(self._back, (number, self._again(lease, b"")))
        self._wake_soon()
        return True

    def defer(self, lease: MemoryLease, until: float, note: bytes = b"") -> bool:
        number = lease.number
        if not self._ends(lease):
            return False
        heapq.heappush(self._deferred, (until, number, self._again(lease, note)))
        self._set_timer()
        return True

    def _again(self, lease: MemoryLease, note: bytes) -> MemoryLease:
        again = MemoryLease(lease.event, lease.number, lease.size, lease.stored)
        again.deliveries = lease.deliveries + 1
        again.note = note
        return again

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deferred:
            loop = asyncio.get_running_loop()
            wait = max(0.0, self._deferred[0][0] - self._channel.clock())
            self._timer = loop.call_later(wait, self._deferred_due)

    def _deferred_due(self) -> None:
        self._timer = None
        now = self._channel.clock()
        due = False
        while self._deferred and self._deferred[0][0] <= now:
            _, number, lease = heapq.heappop(self._deferred)
            heapq.heappush(self._back, (number, lease))
            due = True
        self._set_timer()
        if due and not self._paused:
            self._consumer.wake()

    def reorder(self, order: Order) -> None:
        if order not in self._channel.capabilities.orders:
            raise ValueError(f"an InMemoryChannel keeps no order per {order.value}")
        self._ordered = order is Order.SUBSCRIPTION

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake_soon()

    def lag(self) -> Lag:
        tail, place = self._channel.tail, self._place
        now = self._channel.clock()
        stored = [lease.stored for lease in self._out.values()]
        stored += [lease.stored for _, lease in self._back]
        stored += [lease.stored for _, _, lease in self._deferred]
        if place.following is not None:
            stored.append(place.following.stored)
        return Lag(
            events=tail.number - place.number + self._held_events,
            bytes=tail.end - place.end + self._held_bytes,
            oldest_s=now - min(stored) if stored else None,
            as_of=now,
        )

    @property
    def held_bytes(self) -> int:
        """Bytes that this cursor keeps alive: what it has still to pass, and what it has handed out or holds back."""
        return self._channel.tail.end - self._place.end + self._held_bytes

    def exceeds(self, count: int, size: int, events: int, bytes_: int) -> bool:
        tail, place = self._channel.tail, self._place
        return (
            tail.number - place.number + self._held_events + count > events
            or tail.end - place.end + self._held_bytes + size > bytes_
        )

    def evict(self, reason: str) -> bool:
        """Let go of the oldest event that is not being attempted. False: there is none."""
        if self._back:
            _, lease = heapq.heappop(self._back)
        elif self._deferred:
            # Deferred earliest is stored earliest but for jitter, and needs no second heap.
            _, _, lease = heapq.heappop(self._deferred)
            if self._ordered and not self._detached:
                self._wake_soon()  # it held back all that are behind it
        elif (following := self._place.following) is not None:
            self._place = following
            lease = MemoryLease(following.event, following.number, following.size, following.stored)
            self._consumer.evicted(lease, reason)
            return True
        else:
            return False
        self._held_events -= 1
        self._held_bytes -= lease.size
        self._consumer.evicted(lease, reason)
        return True

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        if self._detached:
            return
        while discard and self.evict(discard):
            pass
        self._detached = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lease in self._out.values():
            lease.lost = True
        self._out.clear()
        self._back.clear()
        self._deferred.clear()
        self._held_events = self._held_bytes = 0
        self._place = self._channel.tail
        self._channel.detached(self._uid, self)
