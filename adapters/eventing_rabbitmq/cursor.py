"""One subscription's place in a channel, in this process: what of its queue is here, and what has become of it.

What the delivery worker calls is synchronous and does no I/O; acknowledgements leave with the turn of the loop. The AMQP
channel is the cursor's own. When it ends all leases are lost with it: their messages come again, here or elsewhere, and what
was known of those that waited for another try is remembered, so that they go on waiting.
"""

import asyncio
import heapq
import logging
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from eventing.bindings.amqp import decode, foreign_event
from eventing.channels import Consumer, Lag, Order
from eventing.cursors import DurableCursor
from eventing.errors import EventingError, InvalidEventError
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq import frames
from eventing_rabbitmq.connection import AmqpChannel, BrokerError, ConnectionLostError, NoAnswerError
from eventing_rabbitmq.delays import step_of
from eventing_rabbitmq.lease import NOTE_HEADER, UNTIL_HEADER, RabbitmqLease
from eventing_rabbitmq.names import DELAYS_S
from eventing_rabbitmq.topology import NOT_FOUND

if TYPE_CHECKING:
    from eventing_rabbitmq.channel import RabbitmqChannel, Way

__all__ = ["HELD_BYTES_MAX", "RabbitmqCursor"]

logger = logging.getLogger(__name__)

HELD_BYTES_MAX: Final = 32 << 20
"""Bytes of events that may wait here for another try, before they hold back what is behind them."""
_HELD: Final = (16, 4096)  # how many may: at first, at most
_ANNOUNCED_S: Final = 1.0  # within which the broker says that a queue is gone
_POLL_S: Final = 10.0  # C-23 allows 15
_BACKOFF_S: Final = (0.2, 5.0)
_REMEMBERED_MAX: Final = 4096
_ORIGIN_MAX: Final = 200
_RECEIPT_DIGITS: Final = 19  # of a number of 64 bits
_Identity = tuple[bytes | None, bytes | None, bytes]


class RabbitmqCursor(DurableCursor[RabbitmqLease]):
    """What the delivery worker talks to."""

    def __init__(self, channel: "RabbitmqChannel", subscriber: Subscriber, consumer: Consumer, order: Order) -> None:
        super().__init__(consumer, channel.clock)
        self.subscriber = subscriber
        self.queue = channel.queue_of(subscriber)
        self._channel = channel
        self._ordered = order is Order.SUBSCRIPTION
        self._receipts = f"{channel.receipts}-".encode()
        self._knows = channel.knows
        self._name = f"{channel.name}, Subscription {subscriber.name or subscriber.uid}"
        self._known: dict[int, RabbitmqLease] = {}  # by tag, in their order: all that are here and not acknowledged
        self._remembered: dict[_Identity, tuple[float, bytes, int]] = {}  # until, note, deliveries
        self._out = 0
        self._held = _HELD[0]
        self._mean_size = 1_000.0
        self._acks: list[int] = []
        self._way: Way | None = None
        self._amqp: AmqpChannel | None = None
        self._consuming = ""  # the consumer's tag
        self._prefetch = 0
        self._polled: tuple[int, int, float] | None = None  # ready, consumers, when
        self._arrived = 0  # since then
        self._put_away = 0  # since then, into delay queues
        self._owed_since: float | None = None
        self._delayed: deque[tuple[float, int]] = deque()  # what waits in delay queues: until when, and the time of the message
        self._renew = asyncio.Event()
        self._ended = False
        self._expiry = self._loop.call_later(self._tick_s, self._expire)
        self._task = self._loop.create_task(self._stay_consuming(), name=f"{self._name} consumes")

    # the worker's side

    def take(self, most: int) -> list[RabbitmqLease]:
        leases: list[RabbitmqLease] = []
        if self._stopped:
            self._short = True
            return leases
        wanted = most
        if self._ordered:
            # A lease that is on its way to a delay queue was deferred before the order was asked for.
            wanted = 0 if self._out or self._deferred else min(most, 1)
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
            logger.info("%s: a message is no CloudEvent (%s) and is delivered as a foreign one", self._name, str(error)[:300])
            message_id = said.message_id.decode("utf-8", "replace")
            event = foreign_event(
                self._channel.source, said.content_type, said.headers, lease.body,
                message_id=message_id, timestamp=said.timestamp,
            )  # fmt: skip
            origin = b""
        lease.event = event
        lease.deliveries = max(lease.deliveries, lease.counted)
        if origin.startswith(self._receipts):
            digits = origin[len(self._receipts) :]
            if digits.isdigit() and len(digits) < _RECEIPT_DIGITS and self._knows(number := int(digits)):
                event.receipt = number
                return
        self._consumer.arrived(event, origin[:_ORIGIN_MAX].decode("ascii", "replace"))

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
        if self._amqp is None or not acks:
            return
        number, write = self._amqp.number, self._amqp.write
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
        self._give_back(self._following(lease, lease.note))
        return True

    def defer(self, lease: RabbitmqLease, until: float, note: bytes = b"") -> bool:
        if not lease.out:
            return False
        following = self._following(lease, note)
        wait = until - self._clock()
        step = step_of(wait)
        if step is None and until >= lease.expires:
            step = DELAYS_S[0]  # later than asked for, but the broker would not wait so long
        if step is None or self._ordered:
            self._hold(following, until)
        else:
            self._delay(following, step, until)
        return True

    def _delay(self, lease: RabbitmqLease, step: int, until: float) -> None:
        assert self._way is not None  # it came by it
        self._way.delays.put(self, lease, self.queue, step, until)

    def _following(self, lease: RabbitmqLease, note: bytes) -> RabbitmqLease:
        self._out -= 1
        following = self._known[lease.tag] = lease.following(note)
        return following

    def _hold(self, lease: RabbitmqLease, until: float) -> None:
        super()._hold(lease, until)
        self._make_room()

    def _make_room(self) -> None:
        """What is handed out or waits takes places that others need: ask for more of them."""
        occupied = len(self._known) - len(self._ready)
        if (
            occupied > self._prefetch // 2
            and not self._ordered
            and self._held < _HELD[1]
            and self._held * self._mean_size < HELD_BYTES_MAX / 2
        ):
            self._held = min(4 * self._held, _HELD[1])
            self._renew.set()

    def reorder(self, order: Order) -> None:
        self._channel.check(order)
        self._ordered = order is Order.SUBSCRIPTION
        self._renew.set()
        self._wake_soon()

    def update(self, subscriber: Subscriber) -> None:
        """The entry of the subscription has changed: it may have another concurrency."""
        self.subscriber = subscriber
        self._renew.set()

    def pause(self) -> None:
        self._stopped = True

    def resume(self) -> None:
        self._stopped = self._ended
        self._wake_soon()

    def lag(self) -> Lag:
        if self._polled is None:
            return Lag(None, None, None)
        ready, consumers, as_of = self._polled
        # Each process that consumes counts its share of what is not handed out.
        ready = -(-max(0, ready - self._arrived) // max(1, consumers))
        while self._delayed and self._delayed[0][0] <= self._clock():
            self._delayed.popleft()
        oldest = next(iter(self._known.values()), None)
        timestamps = [oldest.said.timestamp] if oldest is not None and oldest.said.timestamp is not None else []
        timestamps += [timestamp for _, timestamp in list(self._delayed)[:1]]
        age = max(0.0, time.time() - min(timestamps)) if timestamps else None
        return Lag(events=ready + self._put_away + len(self._known), bytes=None, oldest_s=age, as_of=as_of)

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        """Durable: what is not settled stays in RabbitMQ, whatever `discard` says."""
        if self._ended:
            return
        self._ended = self._stopped = True
        self._flush()
        self._lose()
        self._expiry.cancel()
        await self._leave(max(0.1, deadline - self._clock()))
        self._channel.detached(self.subscriber.uid)

    async def move(self) -> None:
        """Go over to the channel's new way; what is out is lost with the old one."""
        if self._ended:
            return
        self._flush()
        await self._leave(1.0)
        self._task = self._loop.create_task(self._stay_consuming(), name=f"{self._name} consumes")

    async def _leave(self, within_s: float) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._amqp is not None:
            await self._amqp.close(within_s)

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
        for identity in [identity for identity, (until, _, _) in self._remembered.items() if until < now - 60]:
            del self._remembered[identity]
        if expired:
            self._flush()
            self._take_away(expired)
            if self._amqp is not None:
                for lease in expired:
                    self._amqp.write(frames.nack(self._amqp.number, lease.tag))

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
            if (lease.note or until > now) and len(self._remembered) < _REMEMBERED_MAX:
                self._remembered[_identity(lease)] = (until, lease.note, lease.deliveries)
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
        if lease.said.timestamp is not None and len(self._delayed) < _REMEMBERED_MAX:
            self._delayed.append((self._clock() + for_s, lease.said.timestamp))
        self._put_away += 1
        if not lease.lost:
            self._acknowledge(lease)

    def not_delayed(self, lease: RabbitmqLease, until: float) -> None:
        """It could not be put there, so it waits here."""
        if not lease.lost:
            self._hold(lease, until)

    # the AMQP channel's side

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        now = self._clock()
        lease = RabbitmqLease(tag, header, body, again=again, stored=now, expires=now + self._channel.max_hold_s)
        self._known[tag] = lease
        self._arrived += 1
        self._mean_size += (lease.size - self._mean_size) / 64
        if (direct or (again and self._remembered)) and self._waits(lease, now):
            return
        self._ready.append(lease)
        if self._short:
            self._wake_soon()

    def _waits(self, lease: RabbitmqLease, now: float) -> bool:
        """Whether the message has still to wait: it went through a delay queue, or was given back while it waited."""
        known = self._remembered.pop(_identity(lease), None) if lease.again else None
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
            logger.warning("%s: its queue was deleted, and is made again; what was in it is gone", self._name)
            self._queue_gone()

    def _queue_gone(self) -> None:
        self._channel.incomplete.add(self.subscriber.uid)
        self._consuming = ""
        self._renew.set()

    def closed(self, error: EventingError) -> None:
        self._amqp = None
        self._consuming = ""
        if not self._ended:
            self._lose()

    async def _stay_consuming(self) -> None:
        backoff, failure = _BACKOFF_S[0], ""
        while True:
            way = self._way = await self._channel.way()
            connection = await way.consuming.connected()
            try:
                await self._declare(way)
                self._amqp = amqp = await connection.channel(self)
                await self._consume(amqp)
                if failure:
                    logger.info("%s: consumes again", self._name)
                backoff, failure = _BACKOFF_S[0], ""
                await self._while_consuming(way, amqp)
            except (BrokerError, NoAnswerError) as error:
                if failure != str(error):
                    failure = str(error)
                    logger.warning("%s: cannot consume, and tries again: %s", self._name, error)
            except ConnectionLostError:
                pass  # the line says so
            if self._amqp is not None:
                await self._amqp.close()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_S[1])

    async def _declare(self, way: "Way", *, deleted: bool = False) -> None:
        await way.topology.exchange()
        await way.topology.queue(self.subscriber, deleted=deleted)
        self._channel.incomplete.discard(self.subscriber.uid)

    async def _consume(self, amqp: AmqpChannel) -> None:
        """Consume as order and concurrency ask for now. What was handed out before stays so."""
        if self._consuming:
            await amqp.call(commands.Basic.Cancel(consumer_tag=self._consuming))
            self._consuming = ""
        self._prefetch = self._wanted
        await amqp.call(commands.Basic.Qos(prefetch_count=self._prefetch))
        answer = await amqp.call(commands.Basic.Consume(queue=self.queue))
        self._consuming = answer.consumer_tag or ""

    @property
    def _wanted(self) -> int:
        """How many messages may be here: those being attempted, as many that follow, and those that wait for another try."""
        return 1 if self._ordered else min(2 * self.subscriber.concurrency + self._held, 65535)

    async def _poll(self, way: "Way") -> None:
        """See how much is in the queue."""
        arrived, self._arrived, self._put_away = self._arrived, 0, 0
        try:
            ready, consumers = await way.topology.ready(self.queue)
            owed = bool(ready) and not arrived and len(self._known) < self._prefetch and (consumers < 2 or not self._ordered)
            ready += await way.delays.waiting(self.queue)
        except BrokerError as error:
            if error.code != NOT_FOUND:
                raise
            await self._gone_unannounced()
        else:
            self._polled = (ready, consumers, self._clock())
            if self._consuming and not consumers:
                await self._gone_unannounced()
            await self._look_for_a_stall(owed=owed)

    async def _gone_unannounced(self) -> None:
        """The queue is not there, or another of the same name is that somebody has made, and the broker has not said so yet.

        It mostly does a moment later. Where it does not (seen on 3.10, with publishes under way at the deletion) the AMQP channel
        is of no use any more: the broker takes the new queue for the old one there, and gives nothing."""
        self._channel.incomplete.add(self.subscriber.uid)
        end = self._loop.time() + _ANNOUNCED_S
        while self._consuming and self._loop.time() < end:
            await asyncio.sleep(_ANNOUNCED_S / 20)
        if self._consuming and self._amqp is not None:
            logger.warning("%s: its queue is gone, and is made again; what was in it is gone too", self._name)
            await self._amqp.close()

    async def _look_for_a_stall(self, *, owed: bool) -> None:
        """`owed`: there are events for which there is room here, and none has come.

        After a deletion as above RabbitMQ 3.10 may also count a consumer that it gives nothing. A new AMQP channel ends that."""
        now = self._loop.time()
        if not owed or not self._consuming:
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = now
        elif now - self._owed_since >= _POLL_S and self._amqp is not None:
            logger.warning("%s: RabbitMQ has events and hands out none, so that its AMQP channel is opened anew", self._name)
            self._owed_since = None
            await self._amqp.close()

    async def _while_consuming(self, way: "Way", amqp: AmqpChannel) -> None:
        while not amqp.ended.done():
            await self._poll(way)
            renew = self._loop.create_task(self._renew.wait())
            try:
                either: list[asyncio.Future[Any]] = [amqp.ended, renew]
                await asyncio.wait(either, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                renew.cancel()
            if self._renew.is_set() and not amqp.ended.done():
                self._renew.clear()
                if not self._consuming:
                    await self._declare(way, deleted=True)
                if not self._consuming or self._prefetch != self._wanted:
                    await self._consume(amqp)
            elif len(self._known) - len(self._ready) < self._held // 16 and self._held > _HELD[0]:
                self._held //= 4
                self._renew.set()
        raise amqp.ended.result()


def _identity(lease: RabbitmqLease) -> _Identity:
    """What tells a message that comes again from others."""
    said = dict(lease.said.headers)
    id_, source = said.get(b"id"), said.get(b"source")
    return said.get(b"eventing-receipt"), source, id_ if id_ is not None else lease.body
