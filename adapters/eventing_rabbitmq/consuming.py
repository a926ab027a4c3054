"""A consumer on the queue of one subscription, kept there for as long as the cursor lives: on an AMQP channel of its own, made
again whenever that ends, with as many messages at a time as order and concurrency ask for.

In order, one process consumes at a time. RabbitMQ sees to that where the queue was made so (`x-single-active-consumer`). Where
order was asked for later, the processes do: who has the claim on the queue, and sees no consumer on it, consumes. The claim goes
with the connection that has it, and consumers go with theirs; when a queue counts none, all that was out is back in it.
"""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands, frame

from eventing_rabbitmq.connection import AmqpChannel, BrokerError, ConnectionLostError, NoAnswerError
from eventing_rabbitmq.names import QUORUM
from eventing_rabbitmq.topology import NOT_FOUND

if TYPE_CHECKING:
    from eventing_rabbitmq.channel import RabbitmqChannel, Way
    from eventing_rabbitmq.cursor import RabbitmqCursor

__all__ = ["HELD_BYTES_MAX", "Consuming"]

logger = logging.getLogger(__name__)

HELD_BYTES_MAX: Final = 32 << 20
"""Bytes of events that may wait here for another try, before they hold back what is behind them."""
_HELD: Final = (16, 4096)  # how many may: at first, at most
_ANNOUNCED_S: Final = 1.0  # within which the broker says that a queue is gone
_POLL_S: Final = 10.0  # C-23 allows 15
_PATIENCE_MAX_S: Final = 600.0
_BACKOFF_S: Final = (0.2, 5.0)
_TURN_S: Final = 1.0  # how often a process looks whether the one that consumes in order is gone
_LOOKS_PER_S: Final = 200  # of all that wait for that on a connection
_SETTLING_S: Final = 0.02


class Consuming:
    """`amqp` is the AMQP channel, None while there is none; `tag` that of the consumer on it, "" while there is none; `in_order`
    says whether this process alone consumes, one message at a time."""

    def __init__(self, cursor: "RabbitmqCursor", channel: "RabbitmqChannel", *, ordered: bool) -> None:
        self.way: Way | None = None
        self.amqp: AmqpChannel | None = None
        self.tag = ""
        self.prefetch = 0
        self.in_order = False
        self._cursor = cursor
        self._channel = channel
        self._ordered = ordered  # what is asked for
        self._single = False  # RabbitMQ lets one at a time consume
        self._claimed = False
        self._deleted = False  # the broker has just said that the queue is
        self._held = _HELD[0]
        self._owed_since: float | None = None
        self._patience_s = _POLL_S
        self._renew = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._start()

    def _start(self) -> "asyncio.Task[None]":
        return self._loop.create_task(self._stay(), name=f"{self._cursor.name} consumes")

    def adapt(self, *, ordered: bool) -> None:
        """Consume as is asked for now."""
        if ordered and not self._ordered and self.amqp is not None and self._counted_when_cancelled:
            # What comes from now on stays in the queue, in its place; `_begin_anew` does the rest.
            self.amqp.write(frame.marshal(commands.Basic.Cancel(consumer_tag=self.tag, nowait=True), self.amqp.number))
            self.tag = ""
        self._ordered = ordered
        self._renew.set()

    @property
    def _counted_when_cancelled(self) -> bool:
        """Whether the queue counts this consumer, and lets no other take its place, for as long as something of it is out."""
        return bool(self.tag) and self._channel.queue_type == QUORUM and not self._single

    def make_room(self, occupied: int, mean_size: float) -> None:
        """So many places are taken by what is handed out or waits, and others need them: ask for more."""
        if (
            occupied > self.prefetch // 2
            and not self._ordered
            and self._held < _HELD[1]
            and self._held * mean_size < HELD_BYTES_MAX / 2
        ):
            self._held = min(4 * self._held, _HELD[1])
            self._renew.set()

    async def move(self) -> None:
        """Go over to the channel's new way; what is out is lost with the old one."""
        await self.leave(1.0)
        self._task = self._start()

    async def leave(self, within_s: float) -> None:
        """End: what is here goes back to RabbitMQ."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self.amqp is not None:
            await self.amqp.close(within_s)
        if self._claimed:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._give_up_claim()

    # the AMQP channel's side

    def closed(self) -> None:
        self.amqp = None
        self.tag = ""
        self.in_order = False

    def queue_gone(self) -> None:
        self._channel.incomplete.add(self._cursor.subscriber.uid)
        self.tag = ""
        self._deleted = True
        self._renew.set()

    # the task

    async def _stay(self) -> None:
        backoff, failure = _BACKOFF_S[0], ""
        name = self._cursor.name
        while True:
            way = self.way = await self._channel.way()
            connection = await way.consuming.connected()
            try:
                await self._declare(way)
                await self._await_turn(way)
                self.amqp = amqp = await connection.channel(self._cursor)
                self.in_order = self._ordered
                await self._consume(amqp)
                if failure:
                    logger.info("%s: consumes again", name)
                backoff, failure = _BACKOFF_S[0], ""
                await self._while_consuming(way, amqp)
            except (BrokerError, NoAnswerError) as error:
                if failure != str(error):
                    failure = str(error)
                    logger.warning("%s: cannot consume, and tries again: %s", name, error)
            except ConnectionLostError:
                pass  # the line says so
            if self.amqp is not None:
                await self.amqp.close()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_S[1])

    async def _declare(self, way: "Way") -> None:
        await way.topology.exchange()
        deleted, self._deleted = self._deleted, False
        self._single = await way.topology.queue(self._cursor.subscriber, deleted=deleted)
        self._channel.incomplete.discard(self._cursor.subscriber.uid)

    async def _consume(self, amqp: AmqpChannel) -> None:
        """Consume as order and concurrency ask for now. What was handed out before stays so."""
        await self._cancel(amqp)
        self.prefetch = self._wanted
        await amqp.call(commands.Basic.Qos(prefetch_count=self.prefetch))
        answer = await amqp.call(commands.Basic.Consume(queue=self._cursor.queue))
        self.tag = answer.consumer_tag or ""

    async def _cancel(self, amqp: AmqpChannel) -> None:
        if self.tag:
            await amqp.call(commands.Basic.Cancel(consumer_tag=self.tag))
            self.tag = ""

    @property
    def _wanted(self) -> int:
        """How many messages may be here: those being attempted, as many that follow, and those that wait for another try."""
        return 1 if self.in_order else min(2 * self._cursor.subscriber.concurrency + self._held, 65535)

    async def _while_consuming(self, way: "Way", amqp: AmqpChannel) -> None:
        while not amqp.ended.done():
            await self._poll(way)
            await self._until_renewed(_POLL_S, amqp.ended)
            if self._renew.is_set() and not amqp.ended.done():
                self._renew.clear()
                if self._ordered and not self.in_order:
                    await self._begin_anew(amqp)
                    if amqp.ended.done():
                        break
                elif self.in_order and not self._ordered:
                    self.in_order = False
                    await self._give_up_claim()
                if not self.tag:
                    await self._declare(way)
                if not self.tag or self.prefetch != self._wanted:
                    await self._consume(amqp)
            elif self._cursor.occupied < self._held // 16 and self._held > _HELD[0]:
                self._held //= 4
                self._renew.set()
        raise amqp.ended.result()

    async def _until_renewed(self, within_s: float, *ended: "asyncio.Future[Any]") -> None:
        """Until something else is asked for, or one of those is done, or the time is over."""
        renew = self._loop.create_task(self._renew.wait())
        try:
            await asyncio.wait([*ended, renew], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            renew.cancel()

    # one process at a time

    async def _begin_anew(self, amqp: AmqpChannel) -> None:
        """Order is asked for from now on: finish what is out, let go of the rest, and line up with the other processes.

        Until then this consumer keeps the others from going on. It ends first where that makes no difference to them: a quorum
        queue gives what goes back to it to the next consumer before all else, but not sorted. A classic one sorts it in."""
        if self._counted_when_cancelled:
            await self._cancel(amqp)
        while self._ordered and self._cursor.busy and not amqp.ended.done():
            await asyncio.sleep(_SETTLING_S)
        if self._ordered:
            await amqp.close()

    async def _await_turn(self, way: "Way") -> None:
        """In order, and where RabbitMQ does not see to it: return when this process is the only one to consume."""
        queue, line = self._cursor.queue, way.consuming
        line.standing_by += 1
        try:
            while self._ordered and not self._single:
                self._renew.clear()
                if await self._take_turn(way, queue):
                    break
                await self._until_renewed(max(_TURN_S, line.standing_by / _LOOKS_PER_S))
        except BrokerError as error:
            if error.code == NOT_FOUND:
                self._channel.incomplete.add(self._cursor.subscriber.uid)
            raise
        finally:
            line.standing_by -= 1

    async def _take_turn(self, way: "Way", queue: str) -> bool:
        ready, consumers = await way.topology.ready(queue)
        self._cursor.backlog.ask()
        # Who consumes counts what is in the queue.
        self._cursor.backlog.seen(0 if consumers else ready, 1, self._loop.time())
        if consumers or not await way.topology.claim(queue):
            return False
        self._claimed = True
        _, consumers = await way.topology.ready(queue)
        if consumers:
            await self._give_up_claim()
        return not consumers

    async def _give_up_claim(self) -> None:
        way = self.way
        if self._claimed and way is not None and way.consuming.connection is not None:
            with suppress(BrokerError, ConnectionLostError):  # gone with the connection
                await way.topology.give_up_claim(self._cursor.queue)
        self._claimed = False

    # looking after it

    async def _poll(self, way: "Way") -> None:
        """See how much is in the queue."""
        cursor, backlog = self._cursor, self._cursor.backlog
        arrived = backlog.ask()
        if arrived:
            self._patience_s = _POLL_S
        try:
            ready, consumers = await way.topology.ready(cursor.queue)
            owed = bool(ready) and not arrived and cursor.here < self.prefetch and (consumers < 2 or not self.in_order)
            if owed and self.in_order:
                # Mostly another process has the queue: of a single active consumer's, a quorum queue counts no other consumers.
                ready = 0
            ready += await way.delays.waiting(cursor.queue)
        except BrokerError as error:
            if error.code != NOT_FOUND:
                raise
            await self._gone_unannounced()
        else:
            backlog.seen(ready, consumers, self._loop.time())
            if self.tag and not consumers:
                await self._gone_unannounced()
            await self._look_for_a_stall(owed=owed)

    async def _gone_unannounced(self) -> None:
        """The queue is not there, or another of the same name is that somebody has made, and the broker has not said so yet.

        It mostly does a moment later. Where it does not (seen on 3.10, with publishes under way at the deletion) the AMQP channel
        is of no use any more: the broker takes the new queue for the old one there, and gives nothing."""
        self._channel.incomplete.add(self._cursor.subscriber.uid)
        end = self._loop.time() + _ANNOUNCED_S
        while self.tag and self._loop.time() < end:
            await asyncio.sleep(_ANNOUNCED_S / 20)
        if self.tag and self.amqp is not None:
            logger.warning("%s: its queue is gone, and is made again; what was in it is gone too", self._cursor.name)
            await self.amqp.close()

    async def _look_for_a_stall(self, *, owed: bool) -> None:
        """`owed`: there are events for which there is room here, and none has come.

        After a deletion as above RabbitMQ 3.10 may also count a consumer that it gives nothing. A new AMQP channel ends that.
        In order it may as well be that another process has the queue: nothing tells, so it is tried less often each time."""
        now = self._loop.time()
        if not owed or not self.tag:
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = now
        elif now - self._owed_since >= self._patience_s and self.amqp is not None:
            if self.in_order:
                self._patience_s = min(2 * self._patience_s, _PATIENCE_MAX_S)
                logger.info("%s: another process has its queue, or none: its AMQP channel is opened anew", self._cursor.name)
            else:
                text = "%s: RabbitMQ has events and hands out none, so that its AMQP channel is opened anew"
                logger.warning(text, self._cursor.name)
            self._owed_since = None
            await self.amqp.close()
