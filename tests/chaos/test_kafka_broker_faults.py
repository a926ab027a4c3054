"""A Kafka broker that dies, freezes, is cut off, is not there yet or loses its topic, under a mesh that goes on taking events.

Whatever was answered 202 arrives; what could not be stored was answered 503 and nothing else; what was delivered shortly before the
fault may come again, in order.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from eventing.testing.sinks import Answer
from eventing_kafka.names import topic_of
from tests.chaos.kafka_rig import kafka_rig
from tests.chaos.scenes import absent_at_the_start, broker_killed_and_started, connections_cut_and_half_open
from tests.support.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture
async def broker(private_kafka: Callable[[], KafkaBroker]) -> KafkaBroker:
    made = private_kafka()
    await asyncio.to_thread(made.start)
    return made


async def test_killed_and_started_under_load(tmp_path: Path, broker: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", broker.bootstrap, 1) as rig:
        await rig.subscribe()
        await rig.recorded()
        await broker_killed_and_started(rig, broker)


async def test_frozen_for_half_a_minute(tmp_path: Path, broker: KafkaBroker) -> None:
    """Longer than any session: the broker has forgotten the consumers when it goes on. Meanwhile one subscriber is away, and an
    event waits for its next attempt, both longer than a session too."""
    patient = {"retry": 4, "backoffPolicy": "linear", "backoffDelay": "PT15S", "timeout": "PT10S"}
    async with kafka_rig(tmp_path / "data", broker.bootstrap, 2, share=0) as rig:
        await rig.subscribe()
        rig.changes.delivery = patient
        away = await rig.changes.subscribe("away", ordered=True)
        rig.sink.script(away.path, *[Answer(503)] * 2)
        async with rig.load():
            await rig.traffic.until(100)
            rig.fault()
            await asyncio.to_thread(broker.pause)
            await asyncio.sleep(30)
            await asyncio.to_thread(broker.resume)
            rig.fault()
            await rig.traffic.until(100)
        ends = await rig.balance()
        assert ends["delivered"] >= 500
        assert rig.traffic.statuses <= {202, 503}
        await rig.stop()


async def test_connections_cut_and_half_open(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka.proxy() as proxy, kafka_rig(tmp_path / "data", f"127.0.0.1:{proxy.port}", 3) as rig:
        await connections_cut_and_half_open(rig, proxy)


async def test_absent_at_the_start(tmp_path: Path, private_kafka: Callable[[], KafkaBroker]) -> None:
    broker = private_kafka()
    async with kafka_rig(tmp_path / "data", broker.bootstrap, 4, ready=False) as rig:
        await absent_at_the_start(rig, broker, broker.bootstrap)


async def test_its_topic_is_deleted(tmp_path: Path, kafka: KafkaBroker) -> None:
    """Somebody deletes the topic with all that it holds. It is made again, and what is accepted from then on arrives."""
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 5) as rig:
        await rig.subscribe()
        async with rig.load():
            await rig.traffic.until(200)
            rig.fault()
            topic = topic_of({"metadata": {"namespace": "default", "name": rig.traffic.channel}})
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
            await admin.start()
            try:
                await admin.delete_topics([topic])
                rig.traffic.statuses.clear()
                async with asyncio.timeout(120):
                    while topic not in await admin.list_topics() or 202 not in rig.traffic.statuses:
                        await asyncio.sleep(0.1)
            finally:
                await admin.close()
            await rig.changes.channel_ready()
            for each in rig.changes.all:  # what was in the old topic has gone with it
                each.timeline[:] = [(0, "may"), (rig.traffic.next_number, "due")]
            await rig.traffic.until(100)
        await rig.balance()
        await rig.stop()
