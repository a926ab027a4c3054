"""Data-plane processes of a Kafka channel killed and stopped while they deliver: nothing that was accepted is lost, and what comes
again had been delivered within the last commit interval."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.chaos.kafka_rig import kafka_rig
from tests.support.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


async def test_killed_in_the_middle_of_deliveries(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 1) as rig:
        await rig.subscribe()
        await rig.recorded()
        async with rig.load():
            for _ in range(3):
                await rig.traffic.until(rig.rand.randint(60, 150))
                await asyncio.sleep(rig.rand.random() * 0.1)
                await rig.signal_data_plane(signal.SIGKILL)
            await rig.traffic.until(60)
        ends = await rig.balance()
        assert ends["delivered"] >= 450
        await rig.stop()


async def test_three_processes_coming_and_going(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 2, "--workers=3", partitions=6) as rig:
        await rig.subscribe()
        await rig.recorded()
        async with rig.load():
            for _ in range(6):
                await rig.traffic.until(rig.rand.randint(10, 60))
                await rig.signal_data_plane(rig.rand.choice([signal.SIGKILL, signal.SIGTERM]), workers=3)
            await rig.pids(3)
            await rig.traffic.until(60)
        ends = await rig.balance()
        assert ends["delivered"] >= 150
        assert len({each.process for each in rig.traffic.accepted}) >= 3
        await rig.stop()
