"""One subscription's place in a channel, in this process: what of its queue is here, and what has become of it.

What the delivery worker calls is synchronous and does no I/O; acknowledgements leave with the turn of the loop. The AMQP
channel is the cursor's own (`Consuming`). When it ends all leases are lost with it: their messages come again, here or elsewhere,
and what was known of those that waited for another try is remembered, so that they go on waiting.
"""

import heapq
import logging
import time
from typing import TYPE_CHECKING

from eventing.bindings.amqp import decode, foreign_event
from eventing.channels import Consumer, Lag, Order
from eventing.cursors import DurableCursor
from eventing.errors import EventingError, InvalidEventError
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq import frames
from eventing_rabbitmq.backlog import Backlog
from eventing_rabbitmq.consuming import Consuming
from eventing_rabbitmq.delays import step_of
from eventing_rabbitmq.lease import NOTE_HEADER, UNTIL_HEADER, RabbitmqLease
from eventing_rabbitmq.names import DELAYS_S
from eventing_rabbitmq.remembered import Remembered

if TYPE_CHECKING:
    from eventing_rabbitmq.channel import RabbitmqChannel

__all__ = ["RabbitmqCursor"]

logger = logging.getLogger(__name__)


class RabbitmqCursor(DurableCursor[RabbitmqLease]):
    """What the delivery worker talks to."""

    def __init__(self, channel: "RabbitmqChannel", subscriber: Subscriber, consumer: Consumer, order: Order) -> None:
        super().__init__(consumer, channel.host)
        self.subscriber = subscriber
        self.queue = channel.queue_of(subscriber)
        self.name = f"{channel.name}, Subscription {subscriber.name or subscriber.uid}"
        self.backlog = Backlog()
        self._channel = channel
        self._ordered = order is Order.SUBSCRIPTION
        self._known: dict[int, RabbitmqLease] = {}  # by tag, in their order: all that are here and not acknowledged
        self._remembered = Remembered()
        self._out = 0
        self._mean_size = 1_000.0
        self._acks: list[int] = []
        self._ended = False
        self._expiry = self._loop.call_later(self._tick_s, self._expire)
        self._consuming = Consuming(self, channel, ordered=self._ordered)

    # the worker's side

    def take(self, most: int) -> list[RabbitmqLease]:
        leases: list[RabbitmqLease] = []
        if self._stopped:
            self._short = True
            return leases
        wanted = most
        if self._ordered:
            # A lease that is on its way to a delay queue was deferred before the order was asked for.
            held_up = self._out or self._deferred or not self._consuming.in_order
            wanted = 0 if held_up else min(most, 1)
        back, ready = self._back, self._ready
        while len(leases) < wanted:
            if back:
                lease = heapq.heappop(back)
            elif ready:
                lease = ready.popleft()
            else:
                break
            if not lease.decoded:
                self._decode(lease)
            lease.out = True
            leases.append(lease)
        self._out += len(leases)
        if len(leases) < most:
            self._short = True
            self._make_room()
        return leases

    def _decode(self, lease: RabbitmqLease) -> None:
        lease.decoded = True
        said = lease.said
        try:
            event, origin = decode(said.content_type, said.headers, lease.body)
        except InvalidEventError as error:
            logger.info("%s: a message is no CloudEvent (%s) and is delivered as a foreign one", self.name, str(error)[:300])
            message_id = said.message_id.decode("utf-8", "replace")
            event = foreign_event(
                self._channel.source, said.content_type, said.headers, lease.body,
                message_id=message_id, timestamp=said.timestamp,
            )  # fmt: skip
            origin = b""
        lease.event = event
        lease.deliveries = max(lease.deliveries, lease.counted)
        self._met(event, origin)

    def settle(self, lease: RabbitmqLease) -> bool:
        if not lease.out:
            return False
        lease.out = False
        self._out -= 1
        self._acknowledge(lease)
        if self._ordered:
            self._wake_soon()
        return True

    def _acknowledge(self, lease: RabbitmqLease) -> None:
        del self._known[lease.tag]
        if not self._acks:
            self._loop.call_soon(self._flush)
        self._acks.append(lease.tag)

    def _flush(self) -> None:
        """Acknowledge what was settled in this turn of the loop: all below the oldest that is not, at once."""
        acks, self._acks = self._acks, []
        amqp = self._consuming.amqp
        if amqp is None or not acks:
            return
        number, write = amqp.number, amqp.write
        oldest = next(iter(self._known), None)
        together = acks if oldest is None else [tag for tag in acks if tag < oldest]
        if together:
            write(frames.ack(number, max(together), multiple=True))
        if oldest is not None:
            for tag in acks:
                if tag > oldest:
                    write(frames.ack(number, tag))

    def release(self, lease: RabbitmqLease) -> bool:
        if not lease.out:
            return False
        self._give_back(self._again(lease, lease.note))
        return True

    def defer(self, lease: RabbitmqLease, until: float, note: bytes = b"") -> bool:
        if not lease.out:
            return False
        again = self._again(lease, note)
        wait = until - self._clock()
        step = step_of(wait)
        if step is None and until >= lease.expires:
            step = DELAYS_S[0]  # later than asked for, but the broker would not wait so long
        if step is None or self._ordered:
            self._hold(again, until)
        else:
            self._delay(again, step, until)
        return True

    def _delay(self, lease: RabbitmqLease, step: int, until: float) -> None:
        way = self._consuming.way
        assert way is not None  # it came by it
        way.delays.put(self, lease, self.queue, step, until)

    def _again(self, lease: RabbitmqLease, note: bytes) -> RabbitmqLease:
        self._out -= 1
        again = self._known[lease.tag] = lease.again(note)
        return again

    def _hold(self, lease: RabbitmqLease, until: float) -> None:
        super()._hold(lease, until)
        self._make_room()

    def _make_room(self) -> None:
        """What is handed out or waits takes places that others need."""
        self._consuming.make_room(self.occupied, self._mean_size)

    def reorder(self, order: Order) -> None:
        self._channel.check(order)
        self._ordered = order is Order.SUBSCRIPTION
        self._consuming.adapt(ordered=self._ordered)
        self._wake_soon()

    def update(self, subscriber: Subscriber) -> None:
        """The entry of the subscription has changed: it may have another concurrency."""
        self.subscriber = subscriber
        self._consuming.adapt(ordered=self._ordered)

    def pause(self) -> None:
        self._stopped = True

    def resume(self) -> None:
        self._stopped = self._ended
        self._wake_soon()

    def lag(self) -> Lag:
        return self.backlog.lag(len(self._known), next(iter(self._known.values()), None), self._clock())

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        """Durable: what is not settled stays in RabbitMQ, whatever `discard` says."""
        if self._ended:
            return
        self._ended = self._stopped = True
        self._flush()
        self._lose()
        self._expiry.cancel()
        await self._consuming.leave(max(0.1, deadline - self._clock()))
        self._channel.detached(self.subscriber.uid)

    async def move(self) -> None:
        """Go over to the channel's new way; what is out is lost with the old one."""
        if self._ended:
            return
        self._flush()
        await self._consuming.move()

    # what its consumer asks

    @property
    def here(self) -> int:
        """How many messages are here, and not acknowledged."""
        return len(self._known)

    @property
    def occupied(self) -> int:
        """Those that are handed out, or wait for another try."""
        return len(self._known) - len(self._ready)

    @property
    def busy(self) -> bool:
        """Whether something is being attempted, or on its way to a delay queue, or settled and not acknowledged yet."""
        return self._out > 0 or bool(self._acks) or any(lease.delaying for lease in self._known.values())

    # time

    @property
    def _tick_s(self) -> float:
        return min(30.0, self._channel.max_hold_s / 10)

    def _expire(self) -> None:
        """Give back what has been here nearly as long as the broker allows, before it takes all away (C-19)."""
        self._expiry = self._loop.call_later(self._tick_s, self._expire)
        now = self._clock()
        expired = []
        for lease in self._known.values():
            if lease.expires > now:
                break
            if not lease.delaying:
                expired.append(lease)
        self._remembered.forget_before(now)
        if expired:
            self._flush()
            self._take_away(expired)
            if (amqp := self._consuming.amqp) is not None:
                for lease in expired:
                    amqp.write(frames.nack(amqp.number, lease.tag))

    def _take_away(self, gone: list[RabbitmqLease]) -> None:
        """These are no longer ours. What the worker noted, and until when they wait, is remembered: the broker knows nothing of
        it, and most come again to where they were."""
        lost = []
        now = self._clock()
        waits = {lease.tag: until for until, lease in self._deferred}
        for lease in gone:
            del self._known[lease.tag]
            lease.lost = True
            until = waits.get(lease.tag, now)
            if lease.note or until > now:
                self._remembered.put(lease, until)
            if lease.out:
                lease.out = False
                self._out -= 1
                lost.append(lease)
        self._drop_lost()
        if lost and not self._ended:
            self._consumer.lost(lost)
        if self._ordered:
            self._wake_soon()

    def _lose(self) -> None:
        self._take_away(list(self._known.values()))
        self._acks.clear()

    # the delay queues' side

    def delayed(self, lease: RabbitmqLease, for_s: int) -> None:
        """It is in a delay queue for so long."""
        self.backlog.delayed(lease, self._clock() + for_s)
        if not lease.lost:
            self._acknowledge(lease)

    def not_delayed(self, lease: RabbitmqLease, until: float) -> None:
        """It could not be put there, so it waits here."""
        if not lease.lost:
            self._hold(lease, until)

    # the AMQP channel's side

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        now = self._clock()
        lease = RabbitmqLease(tag, header, body, redelivered=again, stored=now, expires=now + self._channel.max_hold_s)
        self._known[tag] = lease
        self.backlog.arrived += 1
        self._mean_size += (lease.size - self._mean_size) / 64
        if (direct or (again and self._remembered)) and self._waits(lease, now):
            return
        self._ready.append(lease)
        if self._short:
            self._wake_soon()

    def _waits(self, lease: RabbitmqLease, now: float) -> bool:
        """Whether the message has still to wait: it went through a delay queue, or was given back while it waited."""
        known = self._remembered.pop(lease) if lease.redelivered else None
        if known is not None:
            until, lease.note, lease.deliveries = known
        else:
            said = dict(lease.said.headers)
            until_ms = said.get(UNTIL_HEADER, b"")
            if not until_ms.isdigit():
                return False
            lease.note = said.get(NOTE_HEADER, b"")
            lease.deliveries = lease.counted
            until = now + int(until_ms[:15]) / 1000 - time.time()
        if until <= now:
            return False
        step = step_of(until - now)
        if step is None or self._ordered:
            self._hold(lease, until)
        else:
            self._delay(lease, step, until)
        return True

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None:
        """Nothing is published here."""

    def returned(self, code: int, routing_key: bytes) -> None:
        """Nothing is published here."""

    def cancelled(self) -> None:
        if not self._ended:
            logger.warning("%s: its queue is gone: deleted, with what was in it, and made again, or its node is away", self.name)
            self._consuming.queue_gone()

    def closed(self, error: EventingError) -> None:
        self._consuming.closed()
        if not self._ended:
            self._lose()
