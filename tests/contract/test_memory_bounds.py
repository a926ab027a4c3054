"""What an in-memory channel keeps, as a model: bounds, order, budget, and nobody forgotten."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventing.channels import Budget, Lease, Order
from eventing.errors import ChannelFullError
from eventing.testing.channel_harness import event
from eventing.testing.channel_harness import subscription as entry
from eventing_memory.channel import OVERFLOW_ANNOTATION, MemoryChannel

EVENTS, BYTES = 6, 8000


class Consumer:
    def __init__(self) -> None:
        self.woken = True
        self.evicted_ids: list[str] = []

    def wake(self) -> None:
        self.woken = True

    def lost(self, leases: Sequence[Lease]) -> None:
        raise AssertionError("memory loses no lease")

    def evicted(self, lease: Lease, reason: str) -> None:
        assert reason == "Overflow"
        self.evicted_ids.append(lease.event.id)


class Subscription:
    """The model: what is due, and where it is."""

    def __init__(self, cursor: Any, consumer: Consumer, *, ordered: bool) -> None:
        self.cursor = cursor
        self.consumer = consumer
        self.ordered = ordered
        self.due: deque[str] = deque()  # not given out, in the order of publishing
        self.out: list[Any] = []
        self.ended: list[str] = []

    @property
    def held(self) -> int:
        return len(self.due) + len(self.out)


class MemoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1000.0
        self.budget = Budget(1 << 20)
        self.channel = self._in_loop(self._channel)
        self.subscriptions: dict[int, Subscription] = {}
        self.number = 0
        self.refusing = False

    def _channel(self) -> MemoryChannel:
        spec = {"metadata": {"name": "c", "namespace": "d", "uid": "u"}, "spec": {}}
        return MemoryChannel(spec, budget=self.budget, clock=lambda: self.now, max_events=EVENTS, max_bytes=BYTES)

    def _in_loop(self, what: Any, *given: Any) -> Any:
        async def main() -> Any:
            result = what(*given)
            result = await result if asyncio.iscoroutine(result) else result
            for _ in range(3):
                await asyncio.sleep(0)  # what was put off to the next turn
            return result

        return self.loop.run_until_complete(main())

    @precondition(lambda self: len(self.subscriptions) < 3)
    @rule(ordered=st.booleans())
    def attach(self, ordered: bool) -> None:
        self.number += 1
        consumer = Consumer()
        order = Order.SUBSCRIPTION if ordered else Order.NONE
        cursor = self._in_loop(lambda: self.channel.attach(entry(f"s{self.number}"), consumer, order=order))
        self.subscriptions[self.number] = Subscription(cursor, consumer, ordered=ordered)

    @rule(refuse=st.booleans())
    def configure(self, refuse: bool) -> None:
        self.refusing = refuse
        self.channel.configure({"metadata": {"annotations": {OVERFLOW_ANNOTATION: "refuse"} if refuse else {}}})

    @rule(sizes=st.lists(st.sampled_from([0, 10, 1500]), min_size=1, max_size=3))
    def publish(self, sizes: list[int]) -> None:
        batch = []
        for size in sizes:
            self.number += 1
            batch.append(event(str(self.number), data=b"x" * size))
        before = {key: (list(s.due), len(s.consumer.evicted_ids)) for key, s in self.subscriptions.items()}
        try:
            assert self._in_loop(self.channel.publish, batch) is None
        except ChannelFullError:
            assert self.refusing
            for key, subscription in self.subscriptions.items():
                assert len(subscription.consumer.evicted_ids) == before[key][1], "refused for all, and nothing was let go of"
            return
        for subscription in self.subscriptions.values():
            subscription.due += [published.id for published in batch]
            for gone in subscription.consumer.evicted_ids[before_count(before, self.subscriptions, subscription) :]:
                subscription.due.remove(gone)
                subscription.ended.append(gone)

    @precondition(lambda self: self.subscriptions)
    @rule(data=st.data(), most=st.integers(0, 5))
    def take(self, data: st.DataObject, most: int) -> None:
        subscription = data.draw(st.sampled_from(list(self.subscriptions.values())))
        subscription.consumer.woken = False
        leases = self._in_loop(subscription.cursor.take, most)
        assert len(leases) <= most
        for lease in leases:
            assert lease.event.id in subscription.due
            subscription.due.remove(lease.event.id)
        subscription.out += leases
        if subscription.ordered:
            assert len(subscription.out) <= 1

    @precondition(lambda self: any(s.out for s in self.subscriptions.values()))
    @rule(data=st.data(), how=st.sampled_from(["settle", "release", "defer"]))
    def end(self, data: st.DataObject, how: str) -> None:
        subscription = data.draw(st.sampled_from([s for s in self.subscriptions.values() if s.out]))
        lease = data.draw(st.sampled_from(subscription.out))
        subscription.out.remove(lease)
        if how == "settle":
            assert self._in_loop(subscription.cursor.settle, lease)
            subscription.ended.append(lease.event.id)
        else:
            given = (lease,) if how == "release" else (lease, self.now + 5, b"note")
            assert self._in_loop(getattr(subscription.cursor, how), *given)
            subscription.due.appendleft(lease.event.id)
        assert not self._in_loop(subscription.cursor.settle, lease), "a lease ends once"

    @rule()
    def time_passes(self) -> None:
        self.now += 10
        for subscription in self.subscriptions.values():
            if subscription.cursor._timer is not None:
                subscription.cursor._timer.cancel()
                self._in_loop(subscription.cursor._deferred_due)

    @precondition(lambda self: self.subscriptions)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.subscriptions)))
        self._in_loop(self.subscriptions.pop(key).cursor.detach, 0.0)

    @invariant()
    def bounds_and_books(self) -> None:
        for subscription in self.subscriptions.values():
            lag = subscription.cursor.lag()
            assert lag.events == subscription.held
            assert lag.events <= EVENTS + len(subscription.out), "what is out cannot be let go of"
            assert (lag.bytes == 0) == (lag.events == 0)
            ids = [*subscription.due, *(lease.event.id for lease in subscription.out), *subscription.ended]
            assert len(ids) == len(set(ids)), "one place for each"
        held = [subscription.cursor.lag().bytes or 0 for subscription in self.subscriptions.values()]
        assert self.budget.recount() >= max(held, default=0)

    def teardown(self) -> None:
        self.now += 1000
        self.time_passes()
        for subscription in self.subscriptions.values():
            for lease in subscription.out:
                self._in_loop(subscription.cursor.settle, lease)
            subscription.out.clear()
            seen: list[str] = []
            deadline = time.monotonic() + 5
            while subscription.due and time.monotonic() < deadline:
                for lease in self._in_loop(subscription.cursor.take, 2):
                    seen.append(lease.event.id)
                    subscription.due.remove(lease.event.id)
                    subscription.consumer.woken = False
                    assert self._in_loop(subscription.cursor.settle, lease)
                    assert subscription.consumer.woken or not subscription.ordered, "the one behind it is told of"
            assert not subscription.due, "everything that is due comes"
            assert not subscription.ordered or seen == sorted(seen, key=int)
        self._in_loop(self.channel.aclose, 0.0)
        assert self.budget.recount() == 0
        self.loop.close()


def before_count(before: dict[int, tuple[list[str], int]], all_: dict[int, Subscription], one: Subscription) -> int:
    return next(before[key][1] for key, subscription in all_.items() if subscription is one)


MemoryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestMemoryMachine = MemoryMachine.TestCase
