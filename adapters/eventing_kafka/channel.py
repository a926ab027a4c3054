"""A KafkaChannel open in this process: its topic's writing side, and a cursor with a group member for each subscription.

Clauses C-01… and the evidence are in docs/decisions/0002-channel-port.md.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from eventing.back_end_settings import SettingsError
from eventing.channels import Capabilities, ChannelHost, Consumer, Order, wanted_order
from eventing.errors import ChannelUnavailableError
from eventing.event import Event
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_kafka.cursor import KafkaCursor
from eventing_kafka.member import Member
from eventing_kafka.names import ORDER_ANNOTATION, group_of, topic_of
from eventing_kafka.producer import PUBLISH_TIMEOUT_S, Producer, lease_producer
from eventing_kafka.settings import KafkaSettings
from eventing_kafka.topic import MAX_MESSAGE_BYTES, Topic, largest_event

__all__ = ["KafkaChannel"]

logger = logging.getLogger(__name__)

_ORDERS: Final = frozenset({Order.NONE, Order.KEY, Order.PARTITION})
_KNATIVE_ORDERS: Final = {"ordered": Order.PARTITION, "unordered": Order.NONE}


class KafkaChannel:
    """Opening does no I/O; it connects in the background, for ever."""

    def __init__(self, channel: Object, host: ChannelHost) -> None:
        self._host = host
        self._channel = channel
        metadata = channel["metadata"]
        self._name = f"KafkaChannel {metadata['namespace']}/{metadata['name']}"
        self._topic_name = topic_of(channel)
        self._failure = ""
        self._settings: KafkaSettings | None = None
        self._producer: Producer | None = None
        self._topic: Topic | None = None
        self._cursors: dict[str, KafkaCursor] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False
        self._unfollow = host.settings.on_change(self._follow)
        self._follow()

    @property
    def capabilities(self) -> Capabilities:
        topic = self._topic
        if topic is not None and topic.partitions:
            partitions = len(topic.partitions)
        else:
            partitions = int((self._channel.get("spec") or {}).get("numPartitions") or 1)
        return Capabilities(
            durable=True,
            orders=_ORDERS | {Order.SUBSCRIPTION} if partitions == 1 else _ORDERS,
            replay=True,
            atomic_batch=False,
            max_event_bytes=topic.max_event_bytes if topic is not None else largest_event(MAX_MESSAGE_BYTES),
            default_order=Order.PARTITION,
        )

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None] | None":
        topic = self._topic
        if topic is None or self._closed:
            raise ChannelUnavailableError("the channel is closed" if self._closed else self._failure, retry_after=5.0)
        return topic.publish(events)

    def order(self, subscriber: Subscriber) -> Order:
        """By our annotation, which names any order; else by Knative's, which knows two."""
        knatives = _KNATIVE_ORDERS.get(subscriber.annotations.get(ORDER_ANNOTATION, ""))
        capabilities = self.capabilities
        if knatives is not None and "eventing-mesh.dev/order" not in subscriber.annotations:
            return knatives
        return wanted_order(subscriber, capabilities)

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> KafkaCursor:
        uid = subscriber.uid
        if uid in self._cursors:
            raise ValueError(f"subscription {uid} is attached already")
        self.check(order)
        metadata = self._channel["metadata"]
        source = (
            f"/apis/messaging.knative.dev/v1beta1/namespaces/{metadata['namespace']}"
            f"/kafkachannels/{metadata['name']}#{self._topic_name}"
        )
        cursor = KafkaCursor(
            self,
            consumer,
            uid=uid,
            order=order,
            source=source,
            host=self._host,
            name=f"{self._name}, Subscription {subscriber.name or uid}",
        )
        cursor.member = Member(
            self._settings,
            cursor,
            topic=self._topic_name,
            group=group_of(self._channel, subscriber),
            client_id=self._client_id,
            clock=self._host.clock,
        )
        self._cursors[uid] = cursor
        return cursor

    def check(self, order: Order) -> None:
        """Raises ValueError for an order that the channel cannot keep."""
        if order not in self.capabilities.orders:
            raise ValueError(f"a KafkaChannel of several partitions keeps no order per {order.value}")

    def detached(self, uid: str) -> None:
        self._cursors.pop(uid, None)

    def configure(self, channel: Object) -> None:
        """What may change of the topic is looked up again: its partitions, its largest message."""
        self._channel = channel
        if self._producer is not None and self._topic is not None:
            self._producer.look(self._topic)

    async def aclose(self, deadline: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._unfollow()
        async with asyncio.TaskGroup() as group:
            for cursor in list(self._cursors.values()):
                group.create_task(cursor.detach(deadline))
            if self._producer is not None and self._topic is not None:
                group.create_task(_retire(self._producer, self._topic, deadline))
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=max(0.0, deadline - self._host.clock()))

    @property
    def _client_id(self) -> str:
        return f"eventing-{self._host.process or 'mesh'}"

    def _follow(self) -> None:
        """The way to Kafka may be another one: go over to it, and let the old one end with what is under way on it."""
        try:
            settings = KafkaSettings.read(self._host.settings)
        except SettingsError as error:
            self._failure = str(error)
            if self._settings is not None:
                logger.warning("%s goes on with the settings that it has: %s", self._name, error)
            return
        if settings == self._settings:
            return
        old = (self._producer, self._topic)
        host = self._host
        self._settings = settings
        self._producer = lease_producer(settings, self._client_id, host.receipts, host.clock)
        self._topic = self._producer.open(self._topic_name, host.budget)
        for cursor in self._cursors.values():
            cursor.member.renew(settings)
        if old[0] is not None and old[1] is not None:
            deadline = host.clock() + PUBLISH_TIMEOUT_S
            task = asyncio.get_running_loop().create_task(_retire(old[0], old[1], deadline), name=f"{self._name} retires")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


async def _retire(producer: Producer, topic: Topic, deadline: float) -> None:
    await producer.close(topic, deadline)
    await producer.release(deadline)
