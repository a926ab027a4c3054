"""A real Kafka cluster: three brokers, each also a controller, as people run it who must not lose events."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.support.back_ends import BackEnd
from tests.support.kafka.broker import KafkaBroker
from tests.support.ports import reserve_ports
from tests.support.reaper import Reaper

__all__ = ["NODES", "KafkaCluster"]

NODES: Final = 3
_IN_SYNC_S: Final = 60.0
_PROPERTIES: Final = {
    "offsets.topic.replication.factor": str(NODES),
    "transaction.state.log.replication.factor": str(NODES),
    "min.insync.replicas": "2",
}


class KafkaCluster:
    """Its internal topics are on every node, and take nothing that only one has. Not started yet."""

    def __init__(self, back_end: BackEnd, reaper: Reaper, properties: Mapping[str, str]) -> None:
        assert back_end.engine is None or back_end.engine.shares_loopback, (
            "brokers in containers reach each other by this machine's loopback interface, which this engine does not share; "
            "$EVENTING_TEST_KAFKA=process runs them without it"
        )
        controllers = reserve_ports(NODES)
        self.brokers = [
            KafkaBroker(back_end, reaper, properties={**_PROPERTIES, **properties}, node=node, controllers=controllers)
            for node in range(1, NODES + 1)
        ]

    @property
    def bootstrap(self) -> str:
        """All of them, with commas between."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self, brokers: Sequence[KafkaBroker] = ()) -> None:
        """Start these, or all, and wait until they serve. None serves before most controllers are there."""
        started = brokers or self.brokers
        with ThreadPoolExecutor(len(started)) as threads:
            list(threads.map(KafkaBroker.start, started))

    def remove(self) -> None:
        for broker in self.brokers:
            broker.remove()

    async def leader(self, topic: str, partition: int) -> KafkaBroker:
        """Who leads the partition now."""
        async with self._admin() as admin:
            (described,) = await admin.describe_topics([topic])
        found: int
        (found,) = (each["leader"] for each in described["partitions"] if each["partition"] == partition)
        return self.brokers[found - 1]

    async def coordinator(self, group: str) -> KafkaBroker:
        """Who coordinates the consumer group now."""
        async with self._admin() as admin:
            found: int = await admin.find_coordinator(group)
        return self.brokers[found - 1]

    async def require_in_sync(self, topic: str, replicas: int) -> None:
        """Have the topic take nothing that fewer brokers have."""
        async with self._admin() as admin:
            wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {"min.insync.replicas": str(replicas)})
            await admin.alter_configs([wanted])

    async def until_in_sync(self, topic: str) -> None:
        """Wait until every replica of every partition has caught up."""
        async with asyncio.timeout(_IN_SYNC_S), self._admin() as admin:
            while True:
                (described,) = await admin.describe_topics([topic])
                if all(len(each["isr"]) == len(each["replicas"]) and each["leader"] >= 0 for each in described["partitions"]):
                    return
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()
