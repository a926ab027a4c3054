"""What the contract suite needs of a Kafka channel: real topics on the session's broker, one set per test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from eventing.channels import BackEndSettings, Channel
from eventing.testing.channel_harness import WITHIN_S
from eventing.testing.proxy import TcpProxy
from eventing_kafka.names import topic_of
from tests.contract.broker_harness import BrokerHarness
from tests.support.kafka.broker import KafkaBroker

__all__ = ["KafkaHarness", "through_a_proxy", "until"]


async def until(condition: Callable[[], object], what: str, within_s: float = 3 * WITHIN_S) -> None:
    """Wait for a condition; fails, saying `what` did not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


class KafkaHarness(BrokerHarness):
    """`partitions` of the topic."""

    back_end = "kafka"
    kind = "KafkaChannel"

    def __init__(self, bootstrap: str, partitions: int = 3) -> None:
        spec = {"numPartitions": partitions, "replicationFactor": 1, "retentionDuration": "PT168H"}
        super().__init__(BackEndSettings({"bootstrap.servers": bootstrap}), spec)
        self.bootstrap = bootstrap
        self.topic = topic_of(self.channel)
        self.admin: AIOKafkaAdminClient

    async def start(self) -> None:
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await self.admin.start()

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
        await self.close_channels()
        await self.provisioner.aclose()
        await self.admin.delete_topics([self.topic])
        await self.admin.close()


@asynccontextmanager
async def through_a_proxy(harness: KafkaHarness, kafka: KafkaBroker) -> AsyncIterator[tuple[TcpProxy, Channel]]:
    """The channel, opened on the way through a proxy."""
    async with kafka.proxy() as proxy:
        harness.settings.change({"bootstrap.servers": f"127.0.0.1:{proxy.port}"}, None, "")
        yield proxy, await harness.open()
