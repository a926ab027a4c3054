"""What the contract suite needs of a RabbitMQ channel: a real exchange and real queues on the session's broker, one set per
test."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from eventing.channels import BackEndSettings, Budget, Channel, ChannelHost, Order, Provisioner, channel_factories
from eventing.resources.kinds import Object
from eventing.testing.channel_harness import ChannelHarness, RecordingConsumer, Subscriber, subscription
from eventing_rabbitmq.names import exchange_of

__all__ = ["RabbitmqHarness"]


def _settings(url: str, config: Mapping[str, str]) -> BackEndSettings:
    return BackEndSettings({"auth.secret.ref.name": "r", **config}, {"url": url.encode()}, "knative-eventing/r")


class RabbitmqHarness(ChannelHarness):
    """`queue_type` of the channel; a channel of its own for each harness, gone with it. `url` is the broker's, `through` the
    way that the flow half takes to it, where that is another."""

    back_end = "rabbitmq"

    def __init__(
        self, url: str, queue_type: str = "quorum", *, config: Mapping[str, str] | None = None, through: str = ""
    ) -> None:
        super().__init__(channel_factories()["rabbitmq"])
        self.url = url
        self.settings = _settings(url, config or {})
        self.flow_settings = _settings(through or url, config or {})
        self.spies = True
        self.unprovisioned = False
        self.budget = Budget(1 << 30)
        self.opened: list[Channel] = []
        self._provisioner = self.factory.provisioner(self.settings)
        self._provisioned = False
        name = f"orders-{uuid.uuid4().hex[:12]}"
        self._channel: Object = {
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": "RabbitmqChannel",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"queueType": queue_type},
        }
        self.exchange = exchange_of(self._channel)
        self.queue = f"test.{name}"
        self.spied: list[AbstractIncomingMessage] = []
        self.connection: aio_pika.abc.AbstractConnection
        self.amqp: aio_pika.abc.AbstractChannel

    async def start(self) -> None:
        self.connection = await aio_pika.connect(self.url)
        self.amqp = await self.connection.channel()

    async def reconnect(self) -> None:
        """After the broker was away."""
        await self.connection.close()
        await self.start()

    async def open(self, process: str = "first") -> Channel:
        if not self._provisioned and not self.unprovisioned:
            made = await self.provisioner.ensure(self.channel)
            assert made.ready, made
            self._provisioned = True
            if self.spies:
                await self._spy_on()
        channel = self.factory.open(
            self.channel,
            ChannelHost(self.budget, time.monotonic, settings=self.flow_settings, process=process, receipts=process),
        )
        self.opened.append(channel)
        return channel

    async def _spy_on(self) -> None:
        """The back door: a queue of the test's own, which gets a copy of all that the exchange takes."""
        queue = await self.amqp.declare_queue(self.queue, durable=False, auto_delete=True)
        await queue.consume(self._spy, no_ack=True)
        await queue.bind(self.exchange)

    async def _spy(self, message: AbstractIncomingMessage) -> None:
        self.spied.append(message)

    @property
    def channel(self) -> Object:
        return self._channel

    @property
    def provisioner(self) -> Provisioner:
        return self._provisioner

    async def subscribe(
        self, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE, annotations: Mapping[str, str] | None = None
    ) -> Subscriber:
        """A cursor of a subscription whose queue is there."""
        entry = subscription(uid, annotations)
        await self.provisioner.ensure_subscription(self.channel, entry)
        consumer = RecordingConsumer()
        return Subscriber(channel.attach(entry, consumer, order=order), consumer)

    async def stored(self) -> list[str]:
        # What the broker has confirmed it has routed; that it has also sent it here takes a moment, and an answer after it.
        await self.amqp.get_exchange(self.exchange)
        return [str(message.headers["id"]) for message in self.spied]

    async def fill(self, channel: Channel) -> bool:
        self.budget.limit = 0  # as if all channels together held as much as they may
        return True

    async def produce(self, body: bytes, **properties: Any) -> None:
        """A message of another producer."""
        exchange = await self.amqp.get_exchange(self.exchange)
        await exchange.publish(aio_pika.Message(body, **properties), routing_key="")

    async def aclose(self) -> None:
        for channel in self.opened:
            await channel.aclose(time.monotonic() + 10.0)
        assert self.budget.used == 0, "what waited for its confirmation is given back"
        await self.provisioner.remove(self.channel)
        await self.provisioner.aclose()
        await self.connection.close()
