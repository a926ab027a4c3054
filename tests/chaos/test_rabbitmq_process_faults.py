"""Data-plane processes of a RabbitMQ channel killed and stopped while they deliver: nothing that was accepted is lost, and what comes
again was on its way then. Several processes share the queues; where order is asked for, one of them is active."""

from pathlib import Path

import pytest

from tests.chaos.rabbitmq_rig import rabbitmq_rig
from tests.chaos.scenes import data_plane_killed, data_planes_coming_and_going
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_killed_in_the_middle_of_deliveries(tmp_path: Path, rabbitmq: RabbitmqBroker, queue_type: str) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 1, queue_type=queue_type) as rig:
        await rig.changes.subscribe("ordered", ordered=True)
        await rig.changes.subscribe("unordered")
        await data_plane_killed(rig)


async def test_two_processes_coming_and_going(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 2, "--workers=2") as rig:
        await rig.changes.subscribe("ordered", ordered=True)
        await rig.changes.subscribe("unordered")
        await data_planes_coming_and_going(rig, 2)
