"""A cluster of three Kafka brokers, of which one after the other goes away and comes back, by force and in order, while events come
in: whatever was answered 202 arrives, each key in its order, and every key is taken again."""

import asyncio
import functools
from pathlib import Path

import pytest

from eventing_kafka.names import topic_of
from tests.chaos.kafka_rig import kafka_rig
from tests.support.kafka.cluster import NODES, KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

FEW = 1  # a cluster takes long to start
_PARTITIONS = 6
_SAFE = {"default.topic.config.min.insync.replicas": "2"}


async def test_each_broker_goes_and_comes_back(tmp_path: Path, private_kafka_cluster: KafkaCluster, seed: int) -> None:
    """The leader of a partition is killed, the others are restarted in turn. Before the last of them goes the topic is told to take
    nothing that only two have: then events are refused, and they are taken again when all three are there."""
    cluster = private_kafka_cluster
    open_rig = functools.partial(kafka_rig, partitions=_PARTITIONS, replicas=NODES, config=_SAFE)
    async with open_rig(tmp_path / "data", cluster.bootstrap, seed) as rig:
        await rig.subscribe()
        topic = topic_of({"metadata": {"namespace": "default", "name": rig.traffic.channel}})
        async with rig.load():
            await rig.traffic.until(100)
            killed = await cluster.leader(topic, rig.rand.randrange(_PARTITIONS))
            restarted, last = rig.rand.sample([broker for broker in cluster.brokers if broker is not killed], 2)
            for broker in (killed, restarted):
                rig.fault()
                await asyncio.to_thread(broker.kill if broker is killed else broker.stop)
                await rig.every_key_taken()  # by the two that are left
                await asyncio.to_thread(broker.start)
                await cluster.until_in_sync(topic)
            await cluster.require_in_sync(topic, NODES)
            rig.fault()
            await asyncio.to_thread(last.stop)
            await rig.until_refused()
            await asyncio.to_thread(last.start)
            await rig.every_key_taken()
            await rig.traffic.until(50)
        ends = await rig.balance()
        assert ends["delivered"] >= 500
        assert rig.traffic.statuses <= {202, 503}
        await rig.stop()
