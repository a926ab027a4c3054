"""The writing side of one topic: records gathered into batches, one batch of a partition under way at a time.

That keeps a partition's events in their order whatever happens to a batch, and makes batches as large as the load asks for: what
comes while one is under way goes with the next. One future per published batch of events, no task per event.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiokafka.partitioner import murmur2

from eventing.bindings.kafka import encode
from eventing.channels import Budget
from eventing.errors import ChannelError, ChannelFullError, ChannelUnavailableError, EventTooLargeError
from eventing.event import Event

if TYPE_CHECKING:
    from eventing_kafka.producer import Producer

__all__ = ["BATCH_BYTES", "MAX_MESSAGE_BYTES", "UNCONFIRMED_MAX", "Batch", "PartitionQueue", "Topic", "largest_event"]

MAX_MESSAGE_BYTES: Final = 1_048_588
"""What a topic takes where nothing else is said (max.message.bytes), with the frame of the batch."""
BATCH_BYTES: Final = 256 << 10
UNCONFIRMED_MAX: Final = 16 << 20
"""Bytes of a channel that may wait for the broker's acknowledgement in this process."""
BATCH_OVERHEAD: Final = 61
# Lengths, offset and timestamp of a record, its receipt, and the lengths of its headers beyond what the head's own marks make
# up for.
RECORD_OVERHEAD: Final = 160
_SAME: Final = 4  # events without a key that go to the same partition one after the other
_KEYS_MAX: Final = 16_384  # keys whose partition is remembered; murmur2 in Python costs more than all else of a publish


class Waiter(Protocol):
    """What a batch tells its end: a future, or the part of one."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> object: ...

    def set_exception(self, exception: BaseException, /) -> object: ...

    def exception(self) -> object: ...


class _Several:
    """A published batch of several events, of which parts are in several batches of records: done when all are."""

    __slots__ = ("_future", "left")

    def __init__(self, future: "asyncio.Future[None]") -> None:
        self._future = future
        self.left = 0

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, _result: None, /) -> None:
        self.left -= 1
        if not self.left:
            self._future.set_result(None)

    def set_exception(self, exception: BaseException, /) -> None:
        self._future.set_exception(exception)

    def exception(self) -> object:
        return self._future.exception()


class Batch:
    """Records of one partition that are sent together, and who waits for them."""

    __slots__ = ("builder", "count", "overdue", "since", "size", "waiters")

    def __init__(self, builder: Any, since: float) -> None:
        self.builder = builder
        self.since = since
        self.size = BATCH_OVERHEAD
        self.count = 0
        self.overdue = False  # nobody waits for it any more, but it may still be stored
        self.waiters: list[Waiter] = []


class PartitionQueue:
    """What goes to one partition: batches that wait, of which the last takes more, and the one under way."""

    __slots__ = ("number", "queue", "under_way")

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: deque[Batch] = deque()
        self.under_way: Batch | None = None

    @property
    def stuck(self) -> bool:
        return self.under_way is not None and self.under_way.overdue


class Topic:
    """The topic of one channel, as far as this process writes it."""

    def __init__(self, producer: "Producer", name: str, budget: Budget) -> None:
        self.name = name
        self.partitions: list[PartitionQueue] = []  # none: not known yet
        self.failure = "it is not known yet whether the topic exists"
        self.refused = False  # the topic is known to be missing or forbidden: nothing is kept for it
        self.max_message_bytes = MAX_MESSAGE_BYTES
        self.unconfirmed = 0
        self._producer = producer
        self._budget = budget
        self._keys: dict[bytes, int] = {}
        self._turns = 0  # events without a key so far
        self._early: deque[tuple[list[Event], asyncio.Future[None], float, int]] = deque()
        self._dirty: list[PartitionQueue] = []
        self._loop = asyncio.get_running_loop()

    @property
    def max_event_bytes(self) -> int:
        """What an event may have: its data and all that is said of it."""
        return largest_event(self.max_message_bytes)

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None]":
        """Raises what Channel.publish raises; nothing of the batch is then sent."""
        producer = self._producer
        if producer.failure or producer.silent or self.refused:
            self._refuse()
        limit = self.max_event_bytes
        total = 0
        for event in events:
            size = _weight(event)
            if size > limit:
                raise EventTooLargeError(
                    f"an event of {size} bytes is more than the topic {self.name} takes, which is {limit} bytes"
                )
            total += size + RECORD_OVERHEAD
        budget = self._budget
        if self.unconfirmed + total > UNCONFIRMED_MAX and self.unconfirmed:
            raise ChannelFullError(f"{self.unconfirmed} bytes of the channel wait for Kafka's acknowledgement")
        if budget.used + total > budget.limit and not budget.admits(total):
            raise ChannelFullError(f"all channels together hold {budget.used} bytes, the limit is {budget.limit}")
        now = producer.clock()
        future: asyncio.Future[None] = self._loop.create_future()
        if not events:
            future.set_result(None)
        elif not self.partitions:
            self._hold(total)
            self._early.append((list(events), future, now, total))
            producer.watch()
        else:
            self._put(events, future, now)
        return future

    def _refuse(self) -> None:
        reason = self._producer.failure or self._producer.silent or self.failure
        raise ChannelUnavailableError(reason, retry_after=self._producer.retry_after)

    def _put(self, events: Sequence[Event], future: "asyncio.Future[None]", now: float) -> None:
        # All are placed before the first is queued: a partition without a way refuses the whole batch (C-07).
        placed = []
        for event in events:
            key, value, headers = encode(event, b"%b-%d" % (self._producer.receipts, event.receipt))
            partition = self._unkeyed() if key is None else self.partitions[self._partition_of(key)]
            if partition.stuck:
                raise ChannelUnavailableError(
                    f"partition {partition.number} of the topic {self.name} does not answer",
                    retry_after=self._producer.retry_after,
                )
            placed.append((partition, key, value, headers, _weight(event) + RECORD_OVERHEAD))
        waiter: Waiter = future
        if len(placed) > 1:
            waiter = several = _Several(future)
            several.left = len(placed)
        for partition, key, value, headers, size in placed:
            queue = partition.queue
            if not queue:
                queue.append(Batch(self._producer.builder(), now))
                self._dirty.append(partition)
                if len(self._dirty) == 1:
                    self._loop.call_soon(self.flush)
            elif queue[-1].size + size > self._batch_bytes:
                queue.append(Batch(self._producer.builder(), now))
            batch = queue[-1]
            batch.builder.append(timestamp=None, key=key, value=value, headers=headers)
            batch.count += 1
            batch.size += size
            batch.waiters.append(waiter)
            self._hold(size)
        self._producer.watch()

    @property
    def _batch_bytes(self) -> int:
        return min(BATCH_BYTES, self.max_message_bytes)

    def _hold(self, size: int) -> None:
        self.unconfirmed += size
        self._budget.used += size

    def _let_go(self, size: int) -> None:
        self.unconfirmed -= size
        self._budget.used -= size

    def _partition_of(self, key: bytes) -> int:
        number = self._keys.get(key)
        if number is None:
            # As Kafka's own clients do, so that other producers of the topic agree.
            number = (murmur2(key) & 0x7FFFFFFF) % len(self.partitions)
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            self._keys[key] = number
        return number

    def _unkeyed(self) -> PartitionQueue:
        """A few events to one partition, then to the next. Kafka's own clients fill a batch for one first, which is cheaper; but
        what is delivered in order is delivered one at a time of a partition, and a burst in one would wait for itself."""
        partitions = self.partitions
        self._turns = turns = self._turns + 1
        for ahead in range(len(partitions)):
            partition = partitions[(turns // _SAME + ahead) % len(partitions)]
            if not partition.stuck:
                break
        return partition

    def known(self, partitions: int, max_message_bytes: int) -> None:
        """The topic is there, with so many partitions."""
        self.max_message_bytes = max_message_bytes
        self.refused, self.failure = False, ""
        if partitions > len(self.partitions):
            self.partitions += [PartitionQueue(number) for number in range(len(self.partitions), partitions)]
            self._keys.clear()
        early, self._early = self._early, deque()
        for events, future, since, size in early:
            self._let_go(size)
            if not future.done():
                try:
                    limit = self.max_event_bytes
                    if any(_weight(event) > limit for event in events):
                        raise EventTooLargeError(f"an event is more than the topic {self.name} takes, which is {limit} bytes")
                    self._put(events, future, since)
                except (ChannelUnavailableError, EventTooLargeError) as error:
                    _fail(future, error)

    def unknown(self, failure: str) -> None:
        """The topic is not there, or may not be written: what is queued fails, and what comes is refused until it is known."""
        self.refused, self.failure = True, failure
        self.fail_queued(failure)

    def fail_queued(self, failure: str) -> None:
        """End all that was never handed to the client."""
        early, self._early = self._early, deque()
        for _, future, _, size in early:
            self._let_go(size)
            _fail(future, _unavailable(failure))
        for partition in self.partitions:
            while partition.queue:
                self.end(partition.queue.popleft(), failure, maybe_stored=False)

    def end(self, batch: Batch, failure: str, *, maybe_stored: bool) -> None:
        """The batch failed, and this process no longer holds it."""
        self._let_go(batch.size - BATCH_OVERHEAD)
        for waiter in batch.waiters:
            _fail(waiter, _unavailable(failure, maybe_stored=maybe_stored))

    def flush(self) -> None:
        """Send what waits and has no batch of its partition before it."""
        dirty, self._dirty = self._dirty, []
        for partition in dirty:
            if partition.under_way is None and partition.queue:
                self._send(partition)

    def _send(self, partition: PartitionQueue) -> None:
        producer = self._producer
        client = producer.current
        if client is None:
            self._dirty.append(partition)  # `flush` is called when it is
            return
        batch = partition.under_way = partition.queue.popleft()
        sent = producer.send(self.name, partition.number, batch.builder)
        sent.add_done_callback(lambda future: self._sent(partition, batch, client, future))

    def _sent(self, partition: PartitionQueue, batch: Batch, client: object, future: "asyncio.Future[Any]") -> None:
        partition.under_way = None
        self._producer.silent = ""
        error = future.exception()
        if error is None:
            self._producer.confirmed = self._producer.clock()
            if not batch.overdue:
                self._let_go(batch.size - BATCH_OVERHEAD)
                for waiter in batch.waiters:
                    if not waiter.done():
                        waiter.set_result(None)
        else:
            assert isinstance(error, Exception)
            self._producer.failed(self, batch, error, client)
        if partition.queue:
            self._send(partition)

    def too_large(self, batch: Batch, limit: int) -> None:
        """The broker would not have the batch, of one event."""
        if batch.overdue:
            return
        self._let_go(batch.size - BATCH_OVERHEAD)
        for waiter in batch.waiters:
            _fail(waiter, EventTooLargeError(f"the topic {self.name} takes no event so large, at most {limit} bytes"))

    def expire(self, due: float, why: str = "") -> bool:
        """Fail what was published before `due`; whether anything is still waited for."""
        waiting = False
        failure = why or f"Kafka did not acknowledge within {self._producer.timeout_s:g} s"
        while self._early and self._early[0][2] <= due:
            _, future, _, size = self._early.popleft()
            self._let_go(size)
            _fail(future, _unavailable(f"{failure}; {self.failure}"))
        for partition in self.partitions:
            under_way = partition.under_way
            if under_way is not None and under_way.since <= due and not under_way.overdue:
                under_way.overdue = True
                refused = self._producer.overdue(self.name, partition.number, under_way.since)
                self.end(under_way, f"{failure}: {refused}" if refused else failure, maybe_stored=True)
            while partition.queue and partition.queue[0].since <= due:
                self.end(partition.queue.popleft(), failure, maybe_stored=False)
            waiting = waiting or bool(partition.queue) or (under_way is not None and not under_way.overdue)
        return waiting or bool(self._early)

    @property
    def pending(self) -> bool:
        """Whether anybody waits for something of it."""
        under_way = (partition.under_way for partition in self.partitions)
        return bool(self._early) or any(
            batch is not None and not batch.overdue for batch in chain(under_way, *(p.queue for p in self.partitions))
        )


def largest_event(max_message_bytes: int) -> int:
    """What an event may have where a batch may have so much."""
    return max_message_bytes - BATCH_OVERHEAD - RECORD_OVERHEAD


def _weight(event: Event) -> int:
    """At least the bytes of the event's record, but for what RECORD_OVERHEAD stands for."""
    wire = event.wire
    if wire is not None and event.structured is None:
        # Each line of the head has two marks of two characters, where a record has two lengths of one or two bytes.
        size = len(event.data) + len(wire)
    else:
        size = max(len(event.data), len(event.structured or b""))
        for name, value in event.attributes.items():
            size += 3 * len(name) + 4 * len(value) + 8
        for line, text in event.headers:
            size += len(line) + len(text) + 8
    return size


def _fail(waiter: Waiter, error: ChannelError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()  # so that asyncio does not complain of those that nobody looks at


def _unavailable(failure: str, *, maybe_stored: bool = False) -> ChannelUnavailableError:
    return ChannelUnavailableError(failure, maybe_stored=maybe_stored)
