"""Data-plane processes of a RabbitMQ channel killed and stopped while they deliver: nothing that was accepted is lost, and what comes
again was on its way then. Several processes share the queues; where order is asked for, one of them is active."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.chaos.rabbitmq_rig import rabbitmq_rig
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_killed_in_the_middle_of_deliveries(tmp_path: Path, rabbitmq: RabbitmqBroker, queue_type: str) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 1, queue_type=queue_type) as rig:
        await rig.changes.subscribe("ordered", ordered=True)
        await rig.changes.subscribe("unordered")
        async with rig.load():
            for _ in range(3):
                await rig.traffic.until(rig.rand.randint(60, 150))
                await asyncio.sleep(rig.rand.random() * 0.1)
                await rig.signal_data_plane(signal.SIGKILL)
            await rig.traffic.until(60)
        ends = await rig.balance()
        assert ends["delivered"] >= 450
        await rig.stop()


async def test_two_processes_coming_and_going(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 2, "--workers=2") as rig:
        await rig.changes.subscribe("ordered", ordered=True)
        await rig.changes.subscribe("unordered")
        async with rig.load():
            for _ in range(4):
                await rig.traffic.until(rig.rand.randint(10, 60))
                await rig.signal_data_plane(rig.rand.choice([signal.SIGKILL, signal.SIGTERM]), workers=2)
            await rig.pids(2)
            await rig.traffic.until(60)
        ends = await rig.balance()
        assert ends["delivered"] >= 150
        assert len({each.process for each in rig.traffic.accepted}) >= 2
        await rig.stop()
