"""What the contract suite needs of a Kafka channel: real topics on the session's broker, one set per test."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from eventing.channels import BackEndSettings, Budget, Channel, ChannelHost, Order, Provisioner, channel_factories
from eventing.resources.kinds import Object
from eventing.testing.channel_harness import WITHIN_S, ChannelHarness, RecordingConsumer, Subscriber, subscription

__all__ = ["KafkaHarness", "until"]


async def until(condition: Callable[[], object], what: str, within_s: float = 3 * WITHIN_S) -> None:
    """Wait for a condition; fails, saying `what` did not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


class KafkaHarness(ChannelHarness):
    """`partitions` of the topic; a topic of its own for each harness, gone with it."""

    back_end = "kafka"

    def __init__(self, bootstrap: str, partitions: int = 3) -> None:
        super().__init__(channel_factories()["kafka"])
        self.bootstrap = bootstrap
        self.settings = BackEndSettings({"bootstrap.servers": bootstrap})
        self.budget = Budget(1 << 30)
        self.opened: list[Channel] = []
        self._provisioner = self.factory.provisioner(self.settings)
        self._provisioned = False
        name = f"orders-{uuid.uuid4().hex[:12]}"
        self._channel: Object = {
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": "KafkaChannel",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"numPartitions": partitions, "replicationFactor": 1, "retentionDuration": "PT168H"},
        }
        self.topic = f"knative-messaging-kafka.default.{name}"
        self.admin: AIOKafkaAdminClient

    async def start(self) -> None:
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await self.admin.start()

    async def open(self, process: str = "first") -> Channel:
        if not self._provisioned:
            made = await self.provisioner.ensure(self.channel)
            assert made.ready, made
            self._provisioned = True
        channel = self.factory.open(
            self.channel,
            ChannelHost(self.budget, time.monotonic, settings=self.settings, process=process, receipts=process),
        )
        self.opened.append(channel)
        return channel

    async def subscribe(
        self, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE, annotations: Mapping[str, str] | None = None
    ) -> Subscriber:
        """A cursor of a subscription that is due from now on, or was before."""
        await self.provisioner.ensure_subscription(self.channel, subscription(uid, annotations))
        return self.attach(channel, uid, order, annotations)

    def attach(
        self, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE, annotations: Mapping[str, str] | None = None
    ) -> Subscriber:
        consumer = RecordingConsumer()
        return Subscriber(channel.attach(subscription(uid, annotations), consumer, order=order), consumer)

    @property
    def channel(self) -> Object:
        return self._channel

    @property
    def provisioner(self) -> Provisioner:
        return self._provisioner

    async def records(self) -> list[Any]:
        """The records of the topic, read by a client of the test's own."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            described = await self.admin.describe_topics([self.topic])
            partitions = [TopicPartition(self.topic, each["partition"]) for each in described[0]["partitions"]]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            records: list[Any] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for fetched in (await consumer.getmany(timeout_ms=1000)).values():
                    records += fetched
            return sorted(records, key=lambda record: (record.timestamp, record.partition, record.offset))
        finally:
            await consumer.stop()

    async def stored(self) -> list[str]:
        return [dict(record.headers)["ce_id"].decode() for record in await self.records()]

    async def fill(self, channel: Channel) -> bool:
        self.budget.limit = 0  # as if all channels together held as much as they may
        return True

    async def produce(
        self, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), *, key: bytes | None = None, partition: int = 0
    ) -> None:
        """A record of another producer."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(self.topic, value, key=key, partition=partition, headers=list(headers))
        finally:
            await producer.stop()

    async def aclose(self) -> None:
        for channel in self.opened:
            await channel.aclose(time.monotonic() + 10.0)
        await self.provisioner.aclose()
        await self.admin.delete_topics([self.topic])
        await self.admin.close()
