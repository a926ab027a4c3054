"""Data-plane processes of a Kafka channel killed and stopped while they deliver: nothing that was accepted is lost, and what comes
again had been delivered within the last commit interval."""

from pathlib import Path

import pytest

from tests.chaos.kafka_rig import kafka_rig
from tests.chaos.scenes import data_plane_killed, data_planes_coming_and_going
from tests.support.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


async def test_killed_in_the_middle_of_deliveries(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 1) as rig:
        await rig.subscribe()
        await rig.recorded()
        await data_plane_killed(rig)


async def test_three_processes_coming_and_going(tmp_path: Path, kafka: KafkaBroker) -> None:
    async with kafka_rig(tmp_path / "data", kafka.bootstrap, 2, "--workers=3", partitions=6) as rig:
        await rig.subscribe()
        await rig.recorded()
        await data_planes_coming_and_going(rig, 3)
