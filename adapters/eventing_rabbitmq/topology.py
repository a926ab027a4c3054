"""What the flow half makes sure of in RabbitMQ whenever it has connected: the exchange, the queues of its cursors, their
bindings.

The provisioner makes them first; but what is deleted underneath, or was bound to an exchange that is gone, is made again here,
since events that are acknowledged meanwhile would be due to nobody.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from pamqp import commands

from eventing.errors import EventingError
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq.connection import AmqpChannel, BrokerError
from eventing_rabbitmq.line import Line
from eventing_rabbitmq.names import (
    CLASSIC,
    SINGLE_CONSUMER,
    claim_of,
    delay_queue,
    delay_queue_arguments,
    exchange_of,
    is_ordered,
    queue_arguments,
    queue_of,
)

__all__ = ["NOT_FOUND", "Topology"]

NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406
_GONE_S: Final = (0.05, 0.5)  # how often, and how long, one looks whether a queue is gone of which that was said


class Topology:
    """One mesh channel's. All calls raise BrokerError and ConnectionLostError; one at a time is under way."""

    def __init__(self, channel: Object, line: Line) -> None:
        self._channel = channel
        self._line = line
        self._amqp: AmqpChannel | None = None
        self._lock = asyncio.Lock()

    async def exchange(self) -> None:
        """The exchange exists."""
        await self._call(commands.Exchange.Declare(exchange=exchange_of(self._channel), exchange_type="fanout", durable=True))

    async def queue(self, subscriber: Subscriber, *, deleted: bool = False) -> bool:
        """The subscription's queue exists and is bound. One that was made otherwise than it would be today stays as it is. Says
        whether RabbitMQ lets one at a time consume. `deleted`: the broker has just said that it is."""
        name = queue_of(self._channel, subscriber.uid)
        # RabbitMQ 4 says that a quorum queue is deleted a moment before it is: it may be declared and bound still, and then goes.
        end = time.monotonic() + _GONE_S[1]
        while deleted and await self._exists(name) and time.monotonic() < end:
            await asyncio.sleep(_GONE_S[0])
        connection = await self._line.connected()
        limited = not connection.version.startswith("3.")
        arguments = queue_arguments(self._channel, subscriber, no_delivery_limit=limited)
        single = is_ordered(subscriber)
        if not await self._is_made(name, arguments):
            single = not single and await self._is_made(name, {**arguments, SINGLE_CONSUMER: True})
        await self._call(commands.Queue.Bind(queue=name, exchange=exchange_of(self._channel), routing_key=""))
        return single

    async def _exists(self, queue: str) -> bool:
        try:
            await self._call(commands.Queue.Declare(queue=queue, passive=True))
        except BrokerError as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True

    async def _is_made(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the queue, which is there now, was made with these arguments."""
        try:
            await self._declare(name, arguments)
        except BrokerError as error:
            if error.code != PRECONDITION_FAILED:
                raise
            return False
        return True

    async def claim(self, queue: str) -> bool:
        """Whether this connection has the claim on the queue, now and until it ends or gives it up: no other has it then."""
        try:
            await self._call(commands.Queue.Declare(queue=claim_of(queue), exclusive=True, arguments={"x-queue-type": CLASSIC}))
        except BrokerError as error:
            if error.code != RESOURCE_LOCKED:
                raise
            return False
        return True

    async def give_up_claim(self, queue: str) -> None:
        await self._call(commands.Queue.Delete(queue=claim_of(queue)))

    async def delay_queue(self, queue: str, delay_s: int) -> str:
        """The queue exists in which events of `queue` wait for so long; its name."""
        name = delay_queue(queue, delay_s)
        await self._declare(name, delay_queue_arguments(queue, delay_s))
        return name

    async def ready(self, queue: str) -> tuple[int, int]:
        """How many messages of a queue are not handed out, and how many consumers it has."""
        answer = await self._call(commands.Queue.Declare(queue=queue, passive=True))
        return answer.message_count or 0, answer.consumer_count or 0

    async def _declare(self, name: str, arguments: Mapping[str, Any]) -> None:
        await self._call(commands.Queue.Declare(queue=name, durable=True, arguments=dict(arguments)))

    async def _call(self, method: Any) -> Any:
        async with self._lock:
            if self._amqp is None:
                connection = await self._line.connected()
                self._amqp = await connection.channel(self)
            return await self._amqp.call(method)

    async def aclose(self) -> None:
        if self._amqp is not None:
            await self._amqp.close(1.0)

    # the AMQP channel's side

    def closed(self, error: EventingError) -> None:
        self._amqp = None

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None:
        """Nothing is consumed here."""

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None:
        """Nothing is published here."""

    def returned(self, code: int, routing_key: bytes) -> None:
        """Nothing is published here."""

    def cancelled(self) -> None:
        """Nothing is consumed here."""
