"""Whatever happens to RabbitMQ under load: every event that was acknowledged is settled in the end, and the rest is said.

The books are kept at the port itself; the same with the whole mesh around it is a matter of the fault tests.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventing.channels import Channel, Lease
from eventing.errors import ChannelError
from eventing.event import Event
from eventing.testing.channel_harness import event, subscription
from tests.contract.rabbitmq_harness import RabbitmqHarness
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]

WITHIN_S = 60.0


class Worker:
    """Takes, defers each fifth event once for a moment, settles the rest."""

    def __init__(self) -> None:
        self.cursor: Any = None
        self.settled: set[str] = set()
        self.deferred: set[str] = set()
        self.losses = 0

    def wake(self) -> None:
        while leases := self.cursor.take(10):
            for lease in leases:
                id_ = lease.event.id
                if id_.endswith(("0", "5")) and id_ not in self.deferred:
                    self.deferred.add(id_)
                    self.cursor.defer(lease, time.monotonic() + 0.5)
                elif self.cursor.settle(lease):
                    self.settled.add(id_)

    def lost(self, leases: Sequence[Lease]) -> None:
        self.losses += len(leases)

    def evicted(self, lease: Lease, reason: str) -> None:
        raise AssertionError("a durable channel evicts nothing")

    def arrived(self, event: Event, origin: str) -> None:
        """Known all the same."""


class Traffic:
    """Publishes as fast as it is let, and keeps the books."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.longest = 0.0
        self._number = 0
        self._going = True
        self._task = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        while self._going:
            batch = []
            for _ in range(20):
                self._number += 1
                batch.append(self._one(str(self._number)))
            await asyncio.gather(*batch)
            await asyncio.sleep(0.02)

    async def _one(self, id_: str) -> None:
        began = time.monotonic()
        try:
            pending = self.channel.publish([event(id_)])
            assert pending is not None
            await pending
        except ChannelError:
            self.refused += 1
        else:
            self.acknowledged.add(id_)
        self.longest = max(self.longest, time.monotonic() - began)

    async def grows(self, count: int = 200) -> None:
        """So many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(WITHIN_S):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._going = False
        await self._task


@asynccontextmanager
async def load(harness: RabbitmqHarness) -> AsyncIterator[Traffic]:
    """Traffic through the channel; at the end the books are looked at."""
    channel = await harness.open()
    workers = []
    for uid in ("one", "two"):
        await harness.provisioner.ensure_subscription(harness.channel, subscription(uid))
        worker = Worker()
        worker.cursor = channel.attach(subscription(uid), worker)
        workers.append(worker)
    traffic = Traffic(channel)
    await traffic.grows()
    yield traffic
    await traffic.grows()
    await traffic.stop()
    deadline = time.monotonic() + WITHIN_S
    for worker in workers:
        while missing := traffic.acknowledged - worker.settled:
            assert time.monotonic() < deadline, (
                f"{len(missing)} of {len(traffic.acknowledged)} are missing: {sorted(missing)[:5]}"
            )
            await asyncio.sleep(0.05)
    assert traffic.longest < 15, "nobody waits without end"


async def test_killed_and_started_again(private_rabbitmq: Callable[..., RabbitmqBroker]) -> None:
    broker = private_rabbitmq()
    await asyncio.to_thread(broker.start)
    harnesses = [RabbitmqHarness(broker.url, queue_type) for queue_type in ("quorum", "classic")]
    for harness in harnesses:
        await harness.start()
        harness.spies = False
    async with load(harnesses[0]) as quorum, load(harnesses[1]) as classic:
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(broker.start)
    assert quorum.refused
    assert classic.refused
    for harness in harnesses:
        await harness.reconnect()
        await harness.aclose()


async def test_cut_and_half_open(rabbitmq: RabbitmqBroker) -> None:
    async with rabbitmq.proxy() as proxy:
        harness = RabbitmqHarness(rabbitmq.url, through=rabbitmq.url_of(port=proxy.port) + "?heartbeat=2")
        await harness.start()
        async with load(harness) as traffic:
            for _ in range(3):
                proxy.cut()
                await traffic.grows()
            proxy.cut_after(5_000)
            await traffic.grows(400)
            await proxy.resume()
            proxy.half_open()
            await asyncio.sleep(6)  # more than two heartbeats: the connections are given up
            await proxy.resume()
        assert traffic.refused
        await harness.aclose()
