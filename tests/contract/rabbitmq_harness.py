"""What the contract suite needs of a RabbitMQ channel: a real exchange and real queues on the session's broker, one set per
test."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from eventing.channels import BackEndSettings, Channel
from eventing.testing.proxy import TcpProxy
from eventing_rabbitmq.names import exchange_of
from tests.contract.broker_harness import BrokerHarness
from tests.support.rabbitmq.broker import RabbitmqBroker

__all__ = ["RabbitmqHarness", "through_a_proxy"]


def _settings(url: str, config: Mapping[str, str]) -> BackEndSettings:
    return BackEndSettings({"auth.secret.ref.name": "r", **config}, {"url": url.encode()}, "knative-eventing/r")


class RabbitmqHarness(BrokerHarness):
    """`queue_type` of the channel. `url` is the broker's, `through` the way that the flow half takes to it, where that is another."""

    back_end = "rabbitmq"
    kind = "RabbitmqChannel"

    def __init__(
        self, url: str, queue_type: str = "quorum", *, config: Mapping[str, str] | None = None, through: str = ""
    ) -> None:
        ways = [_settings(way, config or {}) for way in (url, through or url)]
        super().__init__(ways[0], {"queueType": queue_type}, flow_settings=ways[1])
        self.url = url
        self.spies = True
        self.exchange = exchange_of(self.channel)
        self.queue = f"test.{self.name}"
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

    async def provisioned(self) -> None:
        """The back door: a queue of the test's own, which gets a copy of all that the exchange takes."""
        if not self.spies:
            return
        queue = await self.amqp.declare_queue(self.queue, durable=False, auto_delete=True)
        await queue.consume(self._spy, no_ack=True)
        await queue.bind(self.exchange)

    async def _spy(self, message: AbstractIncomingMessage) -> None:
        self.spied.append(message)

    async def stored(self) -> list[str]:
        # What the broker has confirmed it has routed; that it has also sent it here takes a moment, and an answer after it.
        await self.amqp.get_exchange(self.exchange)
        return [str(message.headers["id"]) for message in self.spied]

    async def produce(self, body: bytes, **properties: Any) -> None:
        """A message of another producer."""
        exchange = await self.amqp.get_exchange(self.exchange)
        await exchange.publish(aio_pika.Message(body, **properties), routing_key="")

    async def aclose(self) -> None:
        await self.close_channels()
        assert self.budget.used == 0, "what waited for its confirmation is given back"
        await self.provisioner.remove(self.channel)
        await self.provisioner.aclose()
        await self.connection.close()


@asynccontextmanager
async def through_a_proxy(rabbitmq: RabbitmqBroker) -> AsyncIterator[tuple[TcpProxy, RabbitmqHarness, Channel]]:
    """A channel whose flow half goes to the broker through a proxy."""
    async with rabbitmq.proxy() as proxy:
        harness = RabbitmqHarness(rabbitmq.url, through=rabbitmq.url_of(port=proxy.port))
        await harness.start()
        channel = await harness.open()
        try:
            yield proxy, harness, channel
        finally:
            await harness.aclose()
