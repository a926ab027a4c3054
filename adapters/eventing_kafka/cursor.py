"""One subscription's place in a topic, in this process: what may be handed out, and what has become of it.

Everything here is synchronous and does no I/O; `Member` reads records into it and writes its positions back. A record has one
lease object from its arrival on, and another for each time that it is given back.

Order is kept by lanes (`Partition.lane_of`): events of one lane are handed out one at a time, so `_ready` holds only what may
go. In order `partition` a partition is a lane, in order `key` a key; events without a lane go as they come.
"""

import heapq
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from eventing.bindings.kafka import decode, foreign_event
from eventing.channels import ChannelHost, Consumer, Lag, Order
from eventing.cursors import DurableCursor
from eventing.errors import InvalidEventError
from eventing.event import Event
from eventing_kafka.offsets import AHEAD_MAX, Offsets
from eventing_kafka.partition import FILL_BYTES, KafkaLease, Lane, Partition, enough

if TYPE_CHECKING:
    from eventing_kafka.channel import KafkaChannel
    from eventing_kafka.member import Member

__all__ = ["HELD_BYTES_MAX", "KafkaCursor"]

logger = logging.getLogger(__name__)

HELD_BYTES_MAX: Final = 32 << 20
"""Bytes of events that wait for another try; beyond it nothing new is handed out until some have an end."""
RECORD_OVERHEAD: Final = 1_000  # what a record weighs here besides its data


class KafkaCursor(DurableCursor[KafkaLease]):
    """What the delivery worker talks to."""

    def __init__(
        self,
        channel: "KafkaChannel",
        consumer: Consumer,
        *,
        uid: str,
        order: Order,
        source: str,
        host: ChannelHost,
        name: str,
    ) -> None:
        super().__init__(consumer, host)
        self.partitions: dict[int, Partition] = {}
        self.name = name
        self.member: Member  # set by the channel, before anything arrives
        self._channel = channel
        self._uid = uid
        self._order = order
        self._enough = enough(order)
        self._source = source
        self._held_bytes = 0  # of back and deferred
        self.saved = True  # whether all that is settled is being written
        self.in_doubt = True  # it is not known which partitions are ours
        self._paused = False
        self._ended = False
        self._stopped = True  # because of any of these three

    # the worker's side

    def take(self, most: int) -> list[KafkaLease]:
        leases: list[KafkaLease] = []
        if self._stopped:
            self._short = True
            return leases
        back = self._back
        while back and most > 0:
            lease = heapq.heappop(back)
            self._held_bytes -= lease.size
            lane = lease.lane
            if lane is not None and lane.before(lease):
                self._stand_back(lane, lease)
                continue
            lease.out = True
            leases.append(lease)
            most -= 1
        ready = self._ready
        if ready and self._held_bytes < HELD_BYTES_MAX:
            while ready and most > 0:
                lease = ready.popleft()
                partition = lease.partition
                if lease.offset >= partition.offsets.position + AHEAD_MAX:
                    partition.far.append(lease)
                    continue
                lease.out = True
                leases.append(lease)
                most -= 1
                record = lease.record
                if record is None:
                    continue  # it comes again, and had to wait for others of its lane
                lease.record = None
                self._open(lease, record)
                partition.unread -= 1
                partition.unread_bytes -= lease.size
                if partition.unread < self._enough and partition.unread_bytes < FILL_BYTES and partition.full:
                    self._read_on(partition)
        if most:
            self._short = True
        return leases

    def _read_on(self, partition: Partition) -> None:
        """Of what the client has fetched already; the member is told where that was all."""
        records = self.member.fetched(partition.number)
        if records:
            self._add(partition, records)
        else:
            partition.full = False
            self.member.room()

    def _stand_back(self, lane: Lane, lease: KafkaLease) -> None:
        """Others of its lane come first: the order was changed while several were out."""
        lane.taken -= 1
        lane.waiting = deque(sorted([*lane.waiting, lease]))
        if not lane.taken:
            lane.taken = 1
            self._ready.append(lane.waiting.popleft())

    def _open(self, lease: KafkaLease, record: Any) -> None:
        """Make the event of a record, and see to its receipt."""
        try:
            event, origin = decode(record.value, record.headers)
        except InvalidEventError as error:
            event, origin = self._foreign(lease.partition.number, record, error), b""
        lease.event = event
        self._met(event, origin)

    def settle(self, lease: KafkaLease) -> bool:
        if not lease.out:
            return False
        lease.out = False
        partition = lease.partition
        offset = lease.offset
        del partition.known[offset]
        partition.bytes -= lease.size
        partition.offsets.settle(offset)
        if self.saved:
            self.saved = False
            self.member.unsaved()
        lane = lease.lane
        if lane is not None:
            lane.taken -= 1
            if not lane.taken:
                if lane.waiting:
                    lane.taken = 1
                    self._ready.append(lane.waiting.popleft())
                    if self._short and not self._waking:
                        self._wake_soon()
                elif lane.key is not None:
                    del partition.lanes[lane.key]
        if partition.far:
            self._draw_near(partition)
        return True

    def release(self, lease: KafkaLease) -> bool:
        if not lease.out:
            return False
        self._give_back(self._again(lease, lease.note))
        return True

    def defer(self, lease: KafkaLease, until: float, note: bytes = b"") -> bool:
        if not lease.out:
            return False
        self._hold(self._again(lease, note), until)
        return True

    def _again(self, lease: KafkaLease, note: bytes) -> KafkaLease:
        lease.out = False
        again = lease.again(note)
        again.partition.known[again.offset] = again
        self._held_bytes += again.size
        return again

    def reorder(self, order: Order) -> None:
        self._channel.check(order)
        if order is self._order:
            return
        self._order = order
        self._enough = enough(order)
        waiting = [lane.waiting for partition in self.partitions.values() for lane in (partition.lane, *partition.lanes.values())]
        for lease in chain(self._ready, *waiting):
            if lease.record is None:
                self._held_bytes += lease.size
                heapq.heappush(self._back, lease)
        self._ready.clear()
        for partition in self.partitions.values():
            partition.lanes.clear()
            partition.lane = Lane(None)
            partition.far.clear()
            unread = []
            for lease in partition.known.values():
                if lease.record is not None:
                    unread.append(lease)
                    continue
                lease.lane = lane = partition.lane_of(lease, order)
                if lane is not None:
                    lane.taken += 1
            for lease in unread:
                lease.lane = lane = partition.lane_of(lease, order)
                if lane is not None and lane.taken:
                    lane.waiting.append(lease)
                    continue
                if lane is not None:
                    lane.taken = 1
                self._ready.append(lease)
            partition.full = False  # what is enough may be more now
        self.member.room()
        self._wake_soon()

    def pause(self) -> None:
        self._paused = self._stopped = True

    def resume(self) -> None:
        self._paused = False
        self._stopped = self.in_doubt or self._ended
        self._wake_soon()

    def lag(self) -> Lag:
        return self.member.lag()

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        """Durable: what is not settled stays in Kafka, whatever `discard` says."""
        if self._ended:
            return
        self._ended = self._stopped = True
        await self.member.leave(deadline)
        # Settling was possible until here.
        for partition in self.partitions.values():
            for lease in partition.known.values():
                lease.lost, lease.out = True, False
        self.partitions.clear()
        self._drop_all()
        self._channel.detached(self._uid)

    def _foreign(self, partition: int, record: Any, error: InvalidEventError) -> Event:
        """A record that is no event, made into one: it must not be lost, nor tried again for ever."""
        logger.info(
            "%s: the record at partition %d, offset %d is no CloudEvent (%s) and is delivered as one of a foreign record",
            self.name, partition, record.offset, str(error)[:300],
        )  # fmt: skip
        return foreign_event(self._source, partition, record.offset, record.timestamp, record.key, record.value, record.headers)

    def _draw_near(self, partition: Partition) -> None:
        """What was too far beyond the oldest may be so no longer."""
        if partition.far and partition.offsets.position + AHEAD_MAX > partition.far[0].offset:
            self._ready.extend(partition.far)
            partition.far.clear()
            self._wake_soon()

    # the member's side

    def arrived(self, number: int, records: Sequence[Any]) -> None:
        """Records of a partition, in their order."""
        partition = self.partitions.get(number)
        if partition is None:
            return
        self._add(partition, records)
        if self._ready and self._short:
            self._wake()

    def _add(self, partition: Partition, records: Sequence[Any]) -> None:
        now = self._clock()
        offsets = partition.offsets
        known = partition.known
        order = self._order
        whole = None if order is Order.NONE else partition.lane
        by_key = order is Order.KEY
        count = total = 0
        for record in records:
            if offsets.arrived(record.offset):
                size = len(record.value or b"") + RECORD_OVERHEAD
                known[record.offset] = lease = KafkaLease(partition, record, size, now)
                count += 1
                total += size
                lane = lease.lane = partition.lane_of(lease, order) if by_key else whole
                if lane is None:
                    self._ready.append(lease)
                elif lane.taken:
                    lane.waiting.append(lease)
                else:
                    lane.taken = 1
                    self._ready.append(lease)
        partition.bytes += total
        partition.unread += count
        partition.unread_bytes += total
        partition.full = partition.unread >= self._enough or partition.unread_bytes >= FILL_BYTES

    def doubt(self) -> None:
        """From now on it is not known which partitions are ours: nothing is handed out, what is out may yet be settled."""
        self.in_doubt = self._stopped = True

    def owns(self, partitions: Iterable[Partition]) -> None:
        """These are ours, from now on; those that are no longer among them are lost, with what is out of them."""
        kept = {partition.number: partition for partition in partitions}
        gone = [partition for partition in self.partitions.values() if kept.get(partition.number) is not partition]
        self.partitions = kept
        if gone:
            self._lose(gone)
        self.in_doubt = False
        self._stopped = self._paused or self._ended
        self._wake_soon()

    def skip(self, number: int, first: int) -> None:
        """The broker has nothing before `first` any more. What was read of that is delivered all the same."""
        partition = self.partitions[number]
        partition.offsets.skip_to(first)
        self._draw_near(partition)

    def replace(self, number: int, offsets: Offsets) -> None:
        """The partition's log has begun anew: nothing that was read of it is there any more."""
        old = self.partitions[number]
        self.partitions[number] = Partition(number, offsets, old.committed)
        self._lose([old])

    def _lose(self, gone: Sequence[Partition]) -> None:
        lost = []
        for partition in gone:
            for lease in partition.known.values():
                lease.lost = True
                if lease.out:
                    lease.out = False
                    lost.append(lease)
        self._drop_lost()
        self._held_bytes = sum(lease.size for lease in self._back) + sum(lease.size for _, lease in self._deferred)
        if lost:
            self._consumer.lost(lost)

    def lag_of(self, highwaters: dict[int, int | None], as_of: float) -> Lag:
        """The lag, where the ends of the partitions are these."""
        events: int | None = 0
        known = 0
        size = 0
        oldest: int | None = None
        for partition in self.partitions.values():
            end = highwaters.get(partition.number)
            offsets = partition.offsets
            known += len(partition.known)
            size += partition.bytes
            first = partition.oldest
            if first is not None and (oldest is None or first.timestamp < oldest):
                oldest = first.timestamp
            if end is None:
                events = None
            elif events is not None:
                events += max(len(partition.known), end - offsets.position - offsets.settled_beyond)
        return Lag(
            events=events,
            bytes=size if events == known else None,
            oldest_s=None if oldest is None else max(0.0, time.time() - oldest / 1000),
            as_of=as_of,
        )
