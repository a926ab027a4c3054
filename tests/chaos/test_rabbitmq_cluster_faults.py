"""A cluster of three RabbitMQ nodes that loses one after the other, each time the one that leads a queue, under a mesh that goes on
taking events: it goes on by itself, whatever was answered 202 arrives, and what is kept in order stays so."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.rabbitmq_rig import queue, rabbitmq_rig
from tests.support.back_ends import BackEnd
from tests.support.rabbitmq.cluster import RabbitmqCluster
from tests.support.reaper import Reaper

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]
GOES_ON_S = 60.0  # without the node that was killed


@pytest.fixture
def cluster(rabbitmq_back_end: BackEnd, reaper: Reaper) -> Iterator[RabbitmqCluster]:
    engine = rabbitmq_back_end.engine
    if engine is not None and not engine.shares_loopback:
        pytest.skip(
            "the nodes of a cluster find each other on one loopback interface, which containers of this engine do not share"
        )
    made = RabbitmqCluster(rabbitmq_back_end, reaper)
    try:
        yield made
    finally:
        made.remove()


async def test_the_node_that_leads_a_queue_is_killed_under_load(tmp_path: Path, cluster: RabbitmqCluster) -> None:
    await asyncio.to_thread(cluster.start)
    async with rabbitmq_rig(tmp_path / "data", f"{cluster.url}?heartbeat=4", 8, share=0) as rig:
        await rig.changes.subscribe("ordered", ordered=True)
        await rig.changes.subscribe("unordered")
        async with rig.load():
            await rig.traffic.until(100)
            for led in ("ordered", "unordered"):
                node = await asyncio.to_thread(cluster.leader_of, queue(rig, led))
                rig.fault()
                await asyncio.to_thread(node.kill)
                killed = time.monotonic()
                await rig.traffic.until(100)
                assert time.monotonic() - killed < GOES_ON_S
                rig.fault()
                await asyncio.to_thread(node.start)
                await asyncio.to_thread(cluster.until_complete)
                await rig.traffic.until(50)
        ends = await rig.balance()
        assert ends["delivered"] >= 600
        assert rig.traffic.statuses <= {202, 503}
        await rig.stop()
