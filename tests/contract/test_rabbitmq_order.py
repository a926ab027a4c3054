"""Order that is asked for when the queue is there already, and given up again: over two processes, under load, on a real RabbitMQ.

Each process has a connection of its own. What is seen is the beginning and the end of each attempt, in one list for both.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from eventing.channels import Channel, Lease, Order
from eventing.event import Event
from eventing.resources.subscribers import Subscriber
from eventing.testing.channel_harness import event, stored, subscription
from tests.contract.rabbitmq_harness import RabbitmqHarness
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]

WITHIN_S = 40.0
BACKLOG = 40
SEVERAL = subscription("uid-1")
ONE = subscription("uid-1", {"eventing-mesh.dev/concurrency": "1"})


@dataclass
class Seen:
    """What all processes have attempted."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    settled: Counter[int] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    overlaps: list[tuple[int, float]] = field(default_factory=list)  # attempts that began while others were under way, and when

    def firsts(self, since: int) -> list[int]:
        """Events in the order in which they were attempted for the first time."""
        return [number for number in dict.fromkeys(number for _, number in self.begun) if number >= since]

    def went_on(self, since: int) -> bool:
        return len(self.firsts(since)) > 20

    def processes(self, since: int) -> set[str]:
        return {process for process, number in self.begun if number >= since}


class Worker:
    """A process: attempts up to ten events at a time, one where it is told so."""

    def __init__(self, name: str, channel: Channel, seen: Seen, rand: random.Random) -> None:
        self.name = name
        self.channel = channel
        self.cursor: Any = channel.attach(SEVERAL, self)
        self.slots = 10
        self._seen = seen
        self._rand = rand

    def edit(self, entry: Subscriber, order: Order) -> None:
        """As a data plane applies it."""
        self.cursor.update(entry)
        self.cursor.reorder(order)
        self.slots = entry.concurrency
        self.wake()

    def wake(self) -> None:
        free = self.slots - self._seen.under_way[self.name]
        for lease in self.cursor.take(free) if free > 0 else ():
            number = int(lease.event.id)
            if self._seen.under_way.total():
                self._seen.overlaps.append((number, time.monotonic()))
            self._seen.begun.append((self.name, number))
            self._seen.under_way[self.name] += 1
            asyncio.get_running_loop().call_later(self._lasts(number), self._end, lease, number)

    def _lasts(self, number: int) -> float:
        return 0.7 if number % 31 == 0 and self.slots > 1 else self._rand.uniform(0.001, 0.02)

    def _end(self, lease: Lease, number: int) -> None:
        self._seen.under_way[self.name] -= 1
        if self.cursor.settle(lease):
            self._seen.settled[number] += 1
        self.wake()

    def lost(self, leases: Sequence[Lease]) -> None:
        """They come again; attempts under way go on."""

    def evicted(self, lease: Lease, reason: str) -> None:
        raise AssertionError("a durable channel evicts nothing")

    def arrived(self, event: Event, origin: str) -> None:
        """Known all the same."""


class Traffic:
    """Publishes numbers, one after the other; there is always something in the queue, and never much."""

    def __init__(self, channel: Channel, seen: Seen, rand: random.Random) -> None:
        self.channel = channel
        self.next = 0
        self._seen = seen
        self._rand = rand
        self._going = True
        self._task = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        while self._going:
            if self.next - len(self._seen.settled) > BACKLOG:
                await asyncio.sleep(0.005)
                continue
            numbers = range(self.next, self.next + self._rand.randint(1, 12))
            await stored(self.channel, *(event(str(number)) for number in numbers))
            self.next = numbers.stop
            await asyncio.sleep(self._rand.uniform(0, 0.03))

    async def grows(self, count: int = 60) -> None:
        wanted = self.next + count
        await until(lambda: self.next >= wanted)

    async def stop(self) -> None:
        self._going = False
        await self._task


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not what():
            await asyncio.sleep(0.01)


@dataclass
class Rig:
    harness: RabbitmqHarness
    seen: Seen
    traffic: Traffic
    workers: list[Worker]
    edited: float = 0.0  # when the last edit was in force everywhere

    async def edit(self, entry: Subscriber, order: Order) -> int:
        """The Subscription asks for something else. The number of the first event that is accepted after that is in force."""
        said = await self.harness.provisioner.ensure_subscription(self.harness.channel, entry)
        assert (said.ready, said.message) == (True, "")
        for worker in self.workers:
            await asyncio.sleep(0.1)  # they do not learn of it in the same moment
            worker.edit(entry, order)
        self.edited = time.monotonic()
        since = self.traffic.next + 12
        await self.traffic.grows()
        return since

    async def all_settled(self) -> None:
        await until(lambda: all(number in self.seen.settled for number in range(self.traffic.next)))


@asynccontextmanager
async def two_processes(rabbitmq: RabbitmqBroker, queue_type: str, entry: Subscriber = SEVERAL) -> AsyncIterator[Rig]:
    rand = random.Random(queue_type)
    harness = RabbitmqHarness(rabbitmq.url, queue_type)
    harness.spies = False
    await harness.start()
    channels = [await harness.open(name) for name in ("first", "second")]
    await harness.provisioner.ensure_subscription(harness.channel, entry)
    seen = Seen()
    workers = [Worker(name, channel, seen, rand) for name, channel in zip(("first", "second"), channels, strict=True)]
    await until(lambda: all(worker.cursor.lag().events is not None for worker in workers))
    publishing = await harness.open("third")  # whatever becomes of the others, the order of events is that of their numbers
    traffic = Traffic(publishing, seen, rand)
    try:
        yield Rig(harness, seen, traffic, workers)
    finally:
        await traffic.stop()
        await harness.aclose()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_order_asked_for_later_is_kept_and_given_up_again(rabbitmq: RabbitmqBroker, queue_type: str) -> None:
    async with two_processes(rabbitmq, queue_type) as rig:
        seen, traffic = rig.seen, rig.traffic
        await traffic.grows()
        since = await rig.edit(ONE, Order.SUBSCRIPTION)
        edited = rig.edited
        await until(lambda: len(seen.firsts(since)) > 100)
        firsts = seen.firsts(since)
        assert firsts == list(range(since, since + len(firsts)))
        assert not [number for number, at in seen.overlaps if at > edited]
        assert len(seen.processes(since)) == 1
        assert [worker.cursor.lag().events is not None for worker in rig.workers] == [True, True]

        more = await rig.edit(SEVERAL, Order.NONE)
        await until(lambda: seen.processes(more) == {"first", "second"})
        assert [number for number, _ in seen.overlaps if number >= more], "several at a time again"

        again = await rig.edit(ONE, Order.SUBSCRIPTION)
        await until(lambda: len(seen.firsts(again)) > 50)
        await traffic.stop()
        await rig.all_settled()
        assert seen.firsts(again) == list(range(again, traffic.next))
        assert Counter(number for _, number in seen.begun) == Counter(range(traffic.next)), "each was attempted once"


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_the_next_process_goes_on_in_order_when_one_goes(rabbitmq: RabbitmqBroker, queue_type: str) -> None:
    """In an orderly way, and by the loss of its connection."""
    async with two_processes(rabbitmq, queue_type) as rig:
        seen, traffic = rig.seen, rig.traffic
        since = await rig.edit(ONE, Order.SUBSCRIPTION)
        await until(lambda: seen.firsts(since))
        (name,) = {process for process, _ in seen.begun[-1:]}
        owner = next(worker for worker in rig.workers if worker.name == name)
        owner.cursor._consuming.amqp.connection.abort("the test ends it")
        await until(partial(seen.went_on, traffic.next))
        (name,) = {process for process, _ in seen.begun[-1:]}
        owner = next(worker for worker in rig.workers if worker.name == name)
        began = time.monotonic()
        await owner.channel.aclose(time.monotonic() + WITHIN_S)
        await until(partial(seen.went_on, traffic.next))
        assert time.monotonic() - began < 15, "the other looks every second"
        await traffic.grows()
        await traffic.stop()
        await rig.all_settled()
        assert seen.firsts(since) == list(range(since, traffic.next))
        again = [number for number, count in Counter(number for _, number in seen.begun).items() if count > 1]
        assert len(again) <= 2, f"what was out at a cut, and when the process went: {again}"


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_queue_made_for_one_consumer_at_a_time_keeps_its_order_through_edits(
    rabbitmq: RabbitmqBroker, queue_type: str
) -> None:
    async with two_processes(rabbitmq, queue_type, ONE) as rig:
        seen, traffic = rig.seen, rig.traffic
        await traffic.grows()
        since = await rig.edit(ONE, Order.SUBSCRIPTION)
        await until(lambda: len(seen.firsts(since)) > 50)
        await traffic.stop()
        await rig.all_settled()
        assert seen.firsts(since) == list(range(since, traffic.next))
        assert not [number for number, at in seen.overlaps if at > rig.edited]
        assert Counter(number for _, number in seen.begun) == Counter(range(traffic.next)), "each was attempted once"
