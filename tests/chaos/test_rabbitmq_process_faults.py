"""Data-plane processes of a RabbitMQ channel killed and stopped while they deliver: nothing that was accepted is lost, and what comes
again was on its way then. Several processes share the queues; where order is asked for, one of them is active."""

import signal
from pathlib import Path

import pytest

from tests.chaos.books import in_order_by_key
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


async def test_order_asked_for_later_over_two_processes_of_which_one_is_killed(tmp_path: Path, rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq_rig(tmp_path / "data", rabbitmq.url, 3, "--workers=2") as rig:
        edited = await rig.changes.subscribe("edited")
        async with rig.load():
            await rig.traffic.until(60)
            since = await rig.changes.reorder("edited", ordered=True)
            await rig.traffic.until(60)
            await rig.signal_data_plane(signal.SIGKILL, workers=2)
            await rig.traffic.until(60)
            before = rig.traffic.oldest_unanswered

            def arrived() -> bool:
                there = rig.sink.ids(edited.path) | rig.sink.ids(edited.dead)
                return {each.id for each in rig.traffic.accepted if each.number < before} <= there

            await rig.sink.until(arrived, within=90, what="all that is due in order")
            await rig.changes.reorder("edited", ordered=False)
            await rig.traffic.until(60)
        ends = await rig.balance()
        assert ends["delivered"] >= 240
        by_id = {each.id: each for each in rig.traffic.accepted if since <= each.number < before}
        in_order_by_key(edited, [by_id[each.event_id] for each in rig.sink.at(edited.path) if each.event_id in by_id])
        await rig.stop()
