"""A RabbitmqChannel open in this process: an exchange to publish to, and a cursor with a queue for each subscription.

Clauses C-01… and the evidence are in docs/decisions/0002-channel-port.md, the choices in 0018-rabbitmq-channel.md.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from eventing.back_end_settings import SettingsError
from eventing.channels import Capabilities, ChannelHost, Consumer, Order, wanted_order
from eventing.errors import ChannelUnavailableError, InvalidObjectError
from eventing.event import Event
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber, read_subscribers
from eventing_rabbitmq.cursor import RabbitmqCursor
from eventing_rabbitmq.delays import Delays
from eventing_rabbitmq.line import lease_line
from eventing_rabbitmq.names import exchange_of, queue_of, queue_type
from eventing_rabbitmq.publisher import MAX_EVENT_BYTES, PUBLISH_TIMEOUT_S, Publisher
from eventing_rabbitmq.settings import RabbitmqSettings
from eventing_rabbitmq.topology import Topology

__all__ = ["RabbitmqChannel"]

logger = logging.getLogger(__name__)

_ORDERS: Final = frozenset({Order.NONE, Order.SUBSCRIPTION})
_HOLD: Final = 5 / 6  # of the broker's consumer_timeout


class Way:
    """What the channel has open to one broker."""

    def __init__(self, owner: "RabbitmqChannel", channel: Object, settings: RabbitmqSettings, host: ChannelHost) -> None:
        process = host.process or "mesh"
        self.publishing = lease_line(settings, f"eventing-{process} publishes")
        self.consuming = lease_line(settings, f"eventing-{process} consumes")
        self.topology = Topology(channel, self.consuming)
        self.delays = Delays(self.topology, self.publishing, host.clock, owner.name)
        self.publisher = Publisher(
            exchange_of(channel),
            self.publishing,
            due=owner.has_subscribers,
            declare=lambda: owner.declare_all(self.topology),
            budget=host.budget,
            clock=host.clock,
            receipts=host.receipts,
            name=owner.name,
        )

    async def aclose(self, deadline: float) -> None:
        await self.publisher.aclose(deadline)
        await self.delays.aclose()
        await self.topology.aclose()
        await self.publishing.release()
        await self.consuming.release()


class RabbitmqChannel:
    """Opening does no I/O; it connects in the background, for ever."""

    def __init__(self, channel: Object, host: ChannelHost) -> None:
        metadata = channel["metadata"]
        self.name = f"RabbitmqChannel {metadata['namespace']}/{metadata['name']}"
        self.source = (
            f"/apis/messaging.knative.dev/v1beta1/namespaces/{metadata['namespace']}"
            f"/rabbitmqchannels/{metadata['name']}#{exchange_of(channel)}"
        )
        self.clock = host.clock
        self.queue_type = queue_type(channel)  # immutable
        self.max_hold_s = RabbitmqSettings("", 0).consumer_timeout_s * _HOLD
        self.host = host
        self._channel = channel
        self._subscribers: dict[str, Subscriber] = {}
        self._failure = ""
        self._settings: RabbitmqSettings | None = None
        self._way: Way | None = None
        self._way_known = asyncio.Event()
        self._cursors: dict[str, RabbitmqCursor] = {}
        self.incomplete: set[str] = set()  # subscriptions whose queue was deleted: what is published would not get there
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False
        self.configure(channel)
        self._unfollow = host.settings.on_change(self._follow)
        self._follow()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            durable=True,
            orders=_ORDERS,
            replay=False,
            atomic_batch=False,
            max_event_bytes=MAX_EVENT_BYTES,
            max_hold_s=self.max_hold_s,
        )

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None] | None":
        way = self._way
        if way is None or self._closed:
            raise ChannelUnavailableError("the channel is closed" if self._closed else self._failure, retry_after=5.0)
        if self.incomplete:
            raise ChannelUnavailableError(
                "the queue of a Subscription is gone, deleted or with its node, and is not there again yet"
            )
        return way.publisher.publish(events)

    def order(self, subscriber: Subscriber) -> Order:
        return wanted_order(subscriber, self.capabilities)

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> RabbitmqCursor:
        uid = subscriber.uid
        if uid in self._cursors:
            raise ValueError(f"subscription {uid} is attached already")
        self.check(order)
        cursor = self._cursors[uid] = RabbitmqCursor(self, subscriber, consumer, order)
        return cursor

    def check(self, order: Order) -> None:
        """Raises ValueError for an order that the channel cannot keep."""
        if order not in _ORDERS:
            raise ValueError(f"a RabbitmqChannel keeps no order per {order.value}")

    def detached(self, uid: str) -> None:
        self._cursors.pop(uid, None)
        self.incomplete.discard(uid)

    def configure(self, channel: Object) -> None:
        self._channel = channel
        try:
            self._subscribers = {subscriber.uid: subscriber for subscriber in read_subscribers(channel)}
        except InvalidObjectError as error:  # admission lets none such through
            logger.warning("%s: %s", self.name, error)
        for uid, cursor in self._cursors.items():
            if (subscriber := self._subscribers.get(uid)) is not None:
                cursor.update(subscriber)

    async def aclose(self, deadline: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._unfollow()
        async with asyncio.TaskGroup() as group:
            for cursor in list(self._cursors.values()):
                group.create_task(cursor.detach(deadline))
        if self._way is not None:
            await self._way.aclose(deadline)
        if self._retiring:
            await asyncio.wait(self._retiring)

    # for its parts

    async def way(self) -> Way:
        """What is open to RabbitMQ; waits until it is known where that is."""
        await self._way_known.wait()
        assert self._way is not None
        return self._way

    def queue_of(self, subscriber: Subscriber) -> str:
        return queue_of(self._channel, subscriber.uid)

    def has_subscribers(self) -> bool:
        """Whether events are due to anybody."""
        return bool(self._cursors or self._subscribers)

    async def declare_all(self, topology: Topology) -> None:
        """Exchange, the queues of all cursors and their bindings are there. Raises BrokerError, ConnectionLostError."""
        await topology.exchange()
        for cursor in list(self._cursors.values()):
            await topology.queue(cursor.subscriber)

    def _follow(self) -> None:
        """The way to RabbitMQ may be another one: go over to it, and let the old one end with what is under way on it."""
        try:
            settings = RabbitmqSettings.read(self.host.settings)
        except SettingsError as error:
            self._failure = str(error)
            if self._settings is not None:
                logger.warning("%s goes on with the settings that it has: %s", self.name, error)
            return
        self.max_hold_s = settings.consumer_timeout_s * _HOLD
        if settings == self._settings:
            return
        self._settings = settings
        old, self._way = self._way, Way(self, self._channel, settings, self.host)
        self._way_known.set()
        if old is not None:
            task = asyncio.get_running_loop().create_task(self._retire(old), name=f"{self.name} retires")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, way: Way) -> None:
        for cursor in list(self._cursors.values()):
            await cursor.move()
        await way.aclose(self.clock() + PUBLISH_TIMEOUT_S)
