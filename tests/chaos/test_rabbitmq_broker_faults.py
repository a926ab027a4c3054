"""A RabbitMQ broker that dies, freezes, is cut off, is not there yet, loses its queues or has no memory left, under a mesh that goes
on taking events.

Whatever was answered 202 arrives; what could not be stored was answered 503 and nothing else; what was on its way at the fault may
come again, in order.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiormq
import pytest

from tests.chaos.rabbitmq_rig import exchange, queue, rabbitmq_rig
from tests.chaos.rig import Rig
from tests.chaos.scenes import absent_at_the_start, broker_killed_and_started, connections_cut_and_half_open
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]
# Twice a heartbeat, and more: who is frozen is given up. The 30 s are for CI's long runs.
FROZEN_S = float(os.environ.get("EVENTING_TEST_FROZEN_S", "12"))
ANSWERED_S = 12.0  # a publish is stored or refused within 10 s


@pytest.fixture
async def broker(private_rabbitmq: Callable[..., RabbitmqBroker]) -> RabbitmqBroker:
    made = private_rabbitmq()
    await asyncio.to_thread(made.start)
    return made


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_killed_and_started_under_load(tmp_path: Path, broker: RabbitmqBroker, queue_type: str) -> None:
    async with rabbitmq_rig(tmp_path / "data", broker.url, 1, queue_type=queue_type) as rig:
        await rig.subscribe()
        await broker_killed_and_started(rig, broker)


async def test_frozen_then_without_memory_then_without_disk(tmp_path: Path, broker: RabbitmqBroker) -> None:
    """Frozen for longer than it takes to give a connection up; then with an alarm, at which it reads nothing more from those who
    publish: they are told so, and what is stored already is delivered all the same."""
    async with rabbitmq_rig(tmp_path / "data", f"{broker.url}?heartbeat=4", 2, share=0.05) as rig:
        await rig.subscribe()
        async with rig.load():
            await rig.traffic.until(100)
            rig.fault()
            await asyncio.to_thread(broker.pause)
            await asyncio.sleep(FROZEN_S)
            await asyncio.to_thread(broker.resume)
            rig.fault()
            await rig.traffic.until(100)
            for begin, end in (
                (broker.memory_alarm, broker.end_of_memory_alarm),
                (broker.disk_alarm, broker.end_of_disk_alarm),
            ):
                await asyncio.to_thread(begin)
                refused = time.monotonic()
                await rig.until_refused()
                assert time.monotonic() - refused < ANSWERED_S
                await asyncio.to_thread(end)
                await rig.traffic.until(50)
        ends = await rig.balance()
        assert ends["delivered"] >= 500
        assert rig.traffic.statuses <= {202, 503}
        await rig.stop()


async def test_connections_cut_and_half_open(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq.proxy() as proxy:
        url = f"{rabbitmq.url_of(port=proxy.port)}?heartbeat=4"
        async with rabbitmq_rig(tmp_path / "data", url, 3) as rig:
            await connections_cut_and_half_open(rig, proxy)


async def test_absent_at_the_start(tmp_path: Path, private_rabbitmq: Callable[..., RabbitmqBroker]) -> None:
    broker = private_rabbitmq()
    async with rabbitmq_rig(tmp_path / "data", broker.url, 4, ready=False) as rig:
        await absent_at_the_start(rig, broker, f"127.0.0.1:{broker.port}", "RabbitmqUnavailable")


@pytest.mark.parametrize("what", ["queue", "exchange"])
async def test_queue_or_exchange_deleted(tmp_path: Path, rabbitmq: RabbitmqBroker, what: str) -> None:
    """Somebody deletes it with all that it holds. It is made again, and what is accepted from then on arrives."""
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 5) as rig:
        await rig.subscribe()
        async with rig.load():
            await rig.traffic.until(100)
            since = rig.traffic.oldest_unanswered
            rig.fault()
            async with aiormq.connect(rabbitmq.url) as connection:
                amqp = await connection.channel()
                if what == "queue":
                    for name in sorted(rig.changes.live):
                        await amqp.queue_delete(queue(rig, name))
                else:
                    await amqp.exchange_delete(exchange(rig))
            async with asyncio.timeout(60):
                async with aiormq.connect(rabbitmq.url) as connection:
                    while not await _bound(connection, rig):
                        await asyncio.sleep(0.1)
            rig.traffic.statuses.clear()
            async with asyncio.timeout(60):
                while 202 not in rig.traffic.statuses:
                    await asyncio.sleep(0.05)
            for each in rig.changes.all:  # what was in the old one has gone with it
                was = [(number, state) for number, state in each.timeline if number < since] if what == "exchange" else []
                each.timeline[:] = [*(was or [(0, "may")]), (since, "may"), (rig.traffic.next_number, "due")]
            await rig.traffic.until(100)
        await rig.balance()
        assert rig.traffic.statuses <= {202, 503}
        await rig.stop()


async def _bound(connection: aiormq.abc.AbstractConnection, rig: Rig) -> bool:
    """Whether exchange and queues are there again, and the mesh reads them."""
    amqp = await connection.channel()
    try:
        await amqp.exchange_declare(exchange(rig), passive=True)
        found = [await amqp.queue_declare(queue(rig, name), passive=True) for name in sorted(rig.changes.live)]
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    await amqp.close()
    return all(each.consumer_count for each in found)
