"""The writing side of one channel: batches of events to its exchange, confirms in flight together, one future for each batch.

Clauses C-04 to C-09 of docs/decisions/0002-channel-port.md. The AMQP channel is this mesh channel's own, so what the broker
closes over it (a missing exchange) fails nobody else's events.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from eventing.bindings.amqp import encode
from eventing.channels import Budget
from eventing.errors import ChannelFullError, ChannelUnavailableError, EventingError, EventTooLargeError
from eventing.event import Event
from eventing_rabbitmq.confirming import Confirming
from eventing_rabbitmq.connection import AmqpChannel, BrokerError, Connection, ConnectionLostError, NoAnswerError
from eventing_rabbitmq.frames import FRAME_OVERHEAD, content_header
from eventing_rabbitmq.line import Line

__all__ = ["MAX_EVENT_BYTES", "PUBLISH_TIMEOUT_S", "UNCONFIRMED_MAX", "Publisher"]

logger = logging.getLogger(__name__)

PUBLISH_TIMEOUT_S: Final = 10.0
MAX_EVENT_BYTES: Final = 4 << 20
"""Data and attributes of an event, at most. RabbitMQ itself would take 128 MiB (16 MiB from 4.0 on), and suffer."""
UNCONFIRMED_MAX: Final = 16 << 20
"""Bytes of a channel that may wait for confirms in this process."""
_HEADER_MAX: Final = 131_072 - FRAME_OVERHEAD  # all attributes travel in one frame
_MESSAGE_OVERHEAD: Final = 200
_SWEEP_S: Final = 0.5
_BLOCKED_GRACE_S: Final = 1.0  # for confirms that were on their way when the broker's alarm went off
_BACKOFF_S: Final = (0.2, 5.0)
_RETRY_AFTER_S: Final = 2.0
_REFUSING_S: Final = 5.0  # how long an AMQP channel may be told by a queue that it takes nothing, before another one asks
_TOLD_S: Final = 60.0  # how often that is said
_REFUSED: Final = "RabbitMQ did not take the event: a queue of the channel is full (a policy may bound it) or not available"


class Batch:
    """What was published together."""

    __slots__ = ("future", "left", "messages", "since", "size")

    def __init__(self, future: "asyncio.Future[None]", messages: list[tuple[bytes, bytes]], size: int, since: float) -> None:
        self.future = future
        self.messages = messages
        self.left = len(messages)
        self.size = size
        self.since = since


class Publisher:
    """`due` says whether the channel has subscriptions; `declare` makes sure that exchange, queues and bindings are there."""

    def __init__(
        self,
        exchange: str,
        line: Line,
        *,
        due: Callable[[], bool],
        declare: Callable[[], Awaitable[None]],
        budget: Budget,
        clock: Callable[[], float],
        receipts: str,
        name: str,
    ) -> None:
        self._line = line
        self._due = due
        self._declare = declare
        self._budget = budget
        self._clock = clock
        self._receipts = receipts.encode()
        self._name = name
        self._confirming: Confirming[Batch] = Confirming(exchange, self._confirmed, self._lost)
        self._failure = ""  # why the AMQP channel could not be made ready
        self._unconfirmed = 0  # bytes
        self._early: deque[Batch] = deque()  # for when it is ready
        self._waited: deque[Batch] = deque()  # all that were published and may not be done, in their order
        self._blocked_since: float | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._answers, self._answered = 0, 0.0  # how many there were when last looked, and since when
        self._stalls = False
        self._closed = False
        self._recheck = asyncio.Event()  # something is not as it should be
        self._refused = False  # a queue has refused an event since the AMQP channel was opened
        self._told_at = -_TOLD_S
        self._loop = asyncio.get_running_loop()
        line.told.append(self._line_changed)
        self._task = self._loop.create_task(self._stay_ready(), name=f"{name} publishes")

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None]":
        """As Channel.publish."""
        confirming = self._confirming
        ready = confirming.channel is not None
        if self._closed:
            raise ChannelUnavailableError("the channel is closed")
        if not ready:
            failure = self._line.failure or self._failure
            if failure:
                raise ChannelUnavailableError(failure, retry_after=_RETRY_AFTER_S)
        if blocked := confirming.blocked:
            raise ChannelUnavailableError(_alarm(blocked), retry_after=_RETRY_AFTER_S)
        messages, total = self._messages(events)
        budget = self._budget
        if self._unconfirmed + total > UNCONFIRMED_MAX and self._unconfirmed:
            raise ChannelFullError(f"{self._unconfirmed} bytes of the channel wait for RabbitMQ's confirmation")
        if budget.used + total > budget.limit and not budget.admits(total):
            raise ChannelFullError(f"all channels together hold {budget.used} bytes, the limit is {budget.limit}")
        future: asyncio.Future[None] = self._loop.create_future()
        if not messages:
            future.set_result(None)
            return future
        self._unconfirmed += total
        budget.used += total
        batch = Batch(future, messages, total, self._clock())
        self._waited.append(batch)
        if self._sweep is None:
            self._answered = batch.since
            self._sweep = self._loop.call_later(_SWEEP_S, self._swept)
        if ready:
            self._send(batch)
        else:
            self._early.append(batch)
        return future

    def _messages(self, events: Sequence[Event]) -> tuple[list[tuple[bytes, bytes]], int]:
        """Headers and bodies, and what they weigh; all are looked at before one is sent (C-07)."""
        messages = []
        total = 0
        now = int(time.time())
        for event in events:
            content_type, headers, body = encode(event, b"%b-%d" % (self._receipts, event.receipt))
            header = content_header(content_type, headers, len(body), now)
            size = len(header) + len(body)
            if len(header) > _HEADER_MAX:
                raise EventTooLargeError(f"the attributes of an event have {len(header)} bytes, RabbitMQ takes {_HEADER_MAX}")
            if size > MAX_EVENT_BYTES:
                raise EventTooLargeError(f"an event of {size} bytes is more than the channel takes, which is {MAX_EVENT_BYTES}")
            total += size + _MESSAGE_OVERHEAD
            messages.append((header, body))
        return messages, total

    def _send(self, batch: Batch) -> None:
        send = self._confirming.send
        for header, body in batch.messages:
            send(header, body, batch)
        batch.messages = []

    # what becomes of it

    def _confirmed(self, batch: Batch, stored: bool, routed: bool) -> None:
        batch.left -= 1
        if not batch.left:
            self._let_go(batch)
        if not stored:
            self._refused = True
            self._recheck.set()
            _fail(batch, _REFUSED, maybe_stored=True)
        elif not routed and self._due():
            # No queue at all is bound, and there are subscriptions: their bindings are gone.
            self._recheck.set()
            _fail(batch, "no queue of a Subscription is bound to the channel's exchange; they are bound again", maybe_stored=True)
        elif not batch.left and not batch.future.done():
            batch.future.set_result(None)

    def _lost(self, batches: list[Batch], error: EventingError) -> None:
        """The AMQP channel has ended; each batch is there once for each of its messages without an answer."""
        for batch in batches:
            batch.left -= 1
            if not batch.left:
                self._let_go(batch)
            _fail(batch, f"RabbitMQ did not confirm the event: {error}", maybe_stored=True)

    def _let_go(self, batch: Batch) -> None:
        self._unconfirmed -= batch.size
        self._budget.used -= batch.size

    def _swept(self) -> None:
        self._sweep = None
        now = self._clock()
        waited = self._waited
        self._look_for_a_stall(now)
        if self._blocked_since is not None and now - self._blocked_since > _BLOCKED_GRACE_S:
            due = self._blocked_since + _SWEEP_S
            why = _alarm(self._confirming.blocked)
        else:
            due = now - PUBLISH_TIMEOUT_S
            why = f"RabbitMQ did not confirm the event within {PUBLISH_TIMEOUT_S:g} s"
        while waited and (waited[0].future.done() or waited[0].since <= due):
            batch = waited.popleft()
            if batch.messages and not batch.future.done():
                self._early.remove(batch)
                self._let_go(batch)
                _fail(batch, why, maybe_stored=False)
            else:
                _fail(batch, why, maybe_stored=True)
        if waited and not self._closed:
            self._sweep = self._loop.call_later(_SWEEP_S, self._swept)

    def _look_for_a_stall(self, now: float) -> None:
        """Where nothing at all is confirmed for so long, a queue may have no leader, or RabbitMQ's side of the AMQP channel may
        not know of the new one: another AMQP channel then does."""
        channel = self._confirming.channel
        if self._answers != self._confirming.answers:
            self._stalls = False
        if self._answers != self._confirming.answers or self._blocked_since is not None or channel is None:
            self._answers, self._answered = self._confirming.answers, now
        elif now - self._answered >= PUBLISH_TIMEOUT_S:
            self._answered = now
            text = f"RabbitMQ has confirmed nothing for {PUBLISH_TIMEOUT_S:g} s"
            if not self._stalls:
                logger.warning("%s: %s, so that its AMQP channel is opened anew", self._name, text)
            self._stalls = True
            channel.give_up(NoAnswerError(text))

    # the AMQP channel

    async def _stay_ready(self) -> None:
        backoff = _BACKOFF_S[0]
        while True:
            connection = await self._line.connected()
            try:
                await self._declare()
                amqp = await self._confirming.open(connection)
            except (BrokerError, ConnectionLostError) as error:
                if isinstance(error, BrokerError):
                    self._failed(f"RabbitMQ refuses the channel: {error.code} {error}")
                elif isinstance(error, NoAnswerError):
                    self._failed(str(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_S[1])
                continue
            backoff, self._failure = _BACKOFF_S[0], ""
            connection.on_blocked.append(self._blocked_changed)
            self._blocked_changed()
            while self._early:
                self._send(self._early.popleft())
            await self._while_ready(connection, amqp)

    async def _while_ready(self, connection: Connection, amqp: AmqpChannel) -> None:
        """Until the AMQP channel has ended; looks after the bindings whenever events came back.

        An AMQP channel to which a quorum queue has refused an event is refused all that follow, also when the queue is bounded no
        more (seen on RabbitMQ 3.10.8: `clear_policy` while it is full). So it does not live on."""
        ended, opened = amqp.ended, self._loop.time()
        self._refused = False
        try:
            while not ended.done():
                self._recheck.clear()
                recheck = self._loop.create_task(self._recheck.wait())
                try:
                    either: list[asyncio.Future[Any]] = [ended, recheck]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    recheck.cancel()
                if self._refused and not ended.done() and self._loop.time() - opened >= _REFUSING_S:
                    self._tell_refused()
                    await amqp.close()
                if not ended.done():
                    with suppress(BrokerError, ConnectionLostError):  # said when it is tried again
                        await self._declare()
                    await asyncio.sleep(_BACKOFF_S[0])
        finally:
            connection.on_blocked.remove(self._blocked_changed)
        error = ended.result()
        if isinstance(error, BrokerError):
            logger.warning("%s: RabbitMQ ended the AMQP channel, which is opened again: %d %s", self._name, error.code, error)

    def _tell_refused(self) -> None:
        now = self._loop.time()
        if now - self._told_at >= _TOLD_S:
            self._told_at = now
            logger.warning("%s: %s; producers are told to try again", self._name, _REFUSED)

    def _failed(self, why: str) -> None:
        if why != self._failure:
            logger.warning("%s: %s", self._name, why)
        self._failure = why
        self._fail_early(why)

    def _line_changed(self) -> None:
        if self._line.failure:
            self._fail_early(self._line.failure)

    def _fail_early(self, why: str) -> None:
        while self._early:
            batch = self._early.popleft()
            self._let_go(batch)
            _fail(batch, why, maybe_stored=False)

    def _blocked_changed(self) -> None:
        if not self._confirming.blocked:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = self._clock()

    async def aclose(self, deadline: float) -> None:
        """Wait for what is under way until `deadline` (of the clock), fail the rest."""
        self._closed = True
        while self._unconfirmed and self._clock() < deadline:
            await asyncio.sleep(0.01)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._fail_early("the channel is closed")
        if self._confirming.channel is not None:
            await self._confirming.channel.close(max(0.1, deadline - self._clock()))
        if self._sweep is not None:
            self._sweep.cancel()
        self._line.told.remove(self._line_changed)


def _alarm(reason: str) -> str:
    return f"RabbitMQ takes no messages now: {reason}"


def _fail(batch: Batch, why: str, *, maybe_stored: bool) -> None:
    if not batch.future.done():
        batch.future.set_exception(ChannelUnavailableError(why, retry_after=_RETRY_AFTER_S, maybe_stored=maybe_stored))
