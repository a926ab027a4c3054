"""The contract of the Channel port as tests: every back end subclasses `ChannelContract` and passes it.

The clauses C-01… are those of docs/decisions/0002-channel-port.md. A back end brings a `ChannelHarness`, which opens channels on
the real thing and reads it through the back door, so that publishing and taking cannot hide each other's faults. What a back end
declares in its Capabilities switches tests; nothing else does, and the tests must not be overridden.
"""

import asyncio
import time
from typing import Any

import pytest

from eventing.channels import Channel, Order
from eventing.errors import ChannelFullError, ChannelUnavailableError, EventTooLargeError
from eventing.testing.channel_harness import (
    WITHIN_S,
    ChannelHarness,
    RecordingConsumer,
    Subscriber,
    clause,
    event,
    ids,
    stored,
    subscription,
)

__all__ = ["ChannelContract"]


class ChannelContract:
    """Subclass it, and give a fixture `harness` that yields a fresh ChannelHarness."""

    async def subscribed(
        self, harness: ChannelHarness, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE
    ) -> Subscriber:
        await harness.provisioner.ensure_subscription(harness.channel, subscription(uid))
        consumer = RecordingConsumer()
        return Subscriber(channel.attach(subscription(uid), consumer, order=order), consumer)

    async def test_runs_on_the_back_end_that_it_names(self, harness: ChannelHarness) -> None:
        """A suite that silently tests another back end is worse than none."""
        channel = await harness.open()
        assert harness.factory.name == harness.back_end
        assert type(channel).__module__.startswith(f"eventing_{harness.back_end}")

    @clause("C-01")
    async def test_provision_is_idempotent_and_moves_nothing(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"))
        await harness.provisioner.ensure(harness.channel)
        await harness.provisioner.ensure_subscription(harness.channel, subscription("uid-1"))
        assert ids(await subscriber.taken(1)) == ["1"]

    @clause("C-02")
    async def test_everything_published_after_subscribing_is_due(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        await stored(channel, event("before"))
        await harness.provisioner.ensure_subscription(harness.channel, subscription("uid-1"))
        consumer = RecordingConsumer()
        if channel.capabilities.durable:
            await stored(channel, event("1"))
            subscriber = Subscriber(channel.attach(subscription("uid-1"), consumer), consumer)
        else:
            subscriber = Subscriber(channel.attach(subscription("uid-1"), consumer), consumer)
            await stored(channel, event("1"))
        await stored(channel, event("2"))
        assert sorted(ids(await subscriber.taken(2))) == ["1", "2"]

    @clause("C-03")
    async def test_a_removed_subscription_leaves_nothing_behind(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("old"))
        await subscriber.cursor.detach(time.monotonic() + WITHIN_S)
        await harness.provisioner.remove_subscription(harness.channel, "uid-1")
        await harness.provisioner.remove_subscription(harness.channel, "uid-1")
        again = await self.subscribed(harness, channel)
        await stored(channel, event("new"))
        assert ids(await again.taken(1)) == ["new"]

    @clause("C-04", "C-06")
    async def test_publish_returns_none_or_a_future_and_then_the_event_is_stored(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        await self.subscribed(harness, channel)
        pending = channel.publish([event("1"), event("2")])
        if pending is None:
            assert not channel.capabilities.durable
        else:
            assert isinstance(pending, asyncio.Future)
            async with asyncio.timeout(WITHIN_S):
                await pending
        assert sorted(await harness.stored()) == ["1", "2"]

    @clause("C-06")
    async def test_without_any_subscription_an_event_is_stored_and_due_to_nobody(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        await stored(channel, event("1"))
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("2"))
        assert ids(await subscriber.taken(1)) == ["2"]
        assert subscriber.take() == []

    @clause("C-07", "C-08")
    async def test_a_batch_with_an_event_too_large_is_refused_at_once_and_stores_nothing(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        large = event("large", data=b"x" * (channel.capabilities.max_event_bytes + 1))
        with pytest.raises(EventTooLargeError) as refused:
            channel.publish([event("small"), large])
        assert not refused.value.retriable
        await stored(channel, event("next"))
        assert ids(await subscriber.taken(1)) == ["next"]
        assert "small" not in await harness.stored()

    @clause("C-08")
    async def test_a_full_channel_says_so_at_once_and_stores_nothing_of_the_batch(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        if not await harness.fill(channel):
            return  # the back end has no bound of its own to reach; the broker's is its fault tests' matter
        held = len(await harness.stored())
        with pytest.raises(ChannelFullError) as refused:
            channel.publish([event("a"), event("b")])
        assert refused.value.retriable
        assert refused.value.retry_after is not None
        assert len(await harness.stored()) == held
        assert not subscriber.consumer.evictions

    @clause("C-10")
    async def test_take_gives_at_most_what_is_asked_and_nothing_when_there_is_nothing(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        assert subscriber.take() == []
        await stored(channel, *(event(str(number)) for number in range(5)))
        first = await subscriber.taken(2, most=2)
        assert len(first) == 2
        assert len(subscriber.take(0)) == 0
        assert sorted(ids([*first, *await subscriber.taken(3)])) == ["0", "1", "2", "3", "4"]

    @clause("C-11")
    async def test_a_cursor_found_empty_is_woken_by_the_next_event_and_never_from_within_a_call(
        self, harness: ChannelHarness
    ) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        for number in range(3):
            assert subscriber.take() == []
            subscriber.consumer.woken.clear()
            await stored(channel, event(str(number)))
            async with asyncio.timeout(WITHIN_S):
                await subscriber.consumer.woken.wait()
            for lease in await subscriber.taken(1):
                assert subscriber.settle(lease)
        assert not subscriber.consumer.reentered

    @clause("C-11")
    async def test_a_take_that_gave_less_than_asked_is_followed_by_a_wake(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"))
        await subscriber.taken(1)
        assert subscriber.take(10) == []
        await stored(channel, event("2"))
        async with asyncio.timeout(WITHIN_S):
            while len(subscriber.take(10)) == 0:
                subscriber.consumer.woken.clear()
                await subscriber.consumer.woken.wait()
        # One was given where ten were asked for, with the first still out: the next must be told of.
        subscriber.consumer.woken.clear()
        await stored(channel, event("3"))
        async with asyncio.timeout(WITHIN_S):
            await subscriber.consumer.woken.wait()
        assert ids(subscriber.take(10)) == ["3"]

    @clause("C-12")
    async def test_an_event_has_one_live_lease(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, *(event(str(number)) for number in range(20)))
        leases = await subscriber.taken(20, most=3)
        assert sorted(map(int, ids(leases))) == list(range(20))
        assert subscriber.take() == []

    @clause("C-14")
    async def test_a_first_delivery_counts_no_earlier_one(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"))
        (lease,) = await subscriber.taken(1)
        assert lease.deliveries == 0
        assert lease.note == b""

    @clause("C-15")
    async def test_settle_in_any_order_once(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, *(event(str(number)) for number in range(5)))
        leases = await subscriber.taken(5)
        for lease in (leases[3], leases[0], leases[4], leases[1], leases[2]):
            assert subscriber.settle(lease)
        assert subscriber.take() == []
        assert subscriber.cursor.lag().events in {0, None}

    @clause("C-17")
    async def test_what_is_released_comes_again(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"), event("2"))
        first, second = await subscriber.taken(2)
        assert subscriber.cursor.release(first)
        (again,) = await subscriber.taken(1)
        assert again.event.id == first.event.id
        assert again.event.data == first.event.data
        assert not subscriber.cursor.settle(first), "a lease ends when it is released"
        assert subscriber.settle(again)
        assert subscriber.settle(second)

    @clause("C-18")
    async def test_what_is_deferred_comes_again_in_time_with_its_note_and_holds_nobody_back(
        self, harness: ChannelHarness
    ) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"), event("2"))
        leases = {lease.event.id: lease for lease in await subscriber.taken(2)}
        until = time.monotonic() + 0.3
        assert subscriber.cursor.defer(leases["1"], until, b"note")
        await stored(channel, event("3"))
        assert ids(await subscriber.taken(1)) == ["3"]
        (again,) = await subscriber.taken(1)
        assert time.monotonic() >= until - 0.005
        assert (again.event.id, again.note) == ("1", b"note")
        assert not subscriber.cursor.settle(leases["1"]), "a lease ends when it is deferred"
        assert subscriber.settle(again)

    @clause("C-20")
    async def test_order_is_kept_through_release_and_defer(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        for order in (Order.SUBSCRIPTION, Order.PARTITION, Order.KEY):
            if order not in channel.capabilities.orders:
                continue
            subscriber = await self.subscribed(harness, channel, f"uid-{order.value}", order)
            await stored(channel, *(event(f"{order.value}-{number}", key="k") for number in range(3)))
            seen: list[str] = []
            for number in range(3):
                (lease,) = await subscriber.taken(1)
                assert subscriber.take() == [], "nothing before the one ahead is settled"
                if number == 0:
                    assert subscriber.cursor.release(lease)
                elif number == 1:
                    assert subscriber.cursor.defer(lease, time.monotonic() + 0.1)
                    assert subscriber.take() == []
                else:
                    assert subscriber.settle(lease)
                    seen.append(lease.event.id)
                    continue
                (lease,) = await subscriber.taken(1)
                seen.append(lease.event.id)
                assert subscriber.settle(lease)
            assert seen == [f"{order.value}-{number}" for number in range(3)]

    @clause("C-20", "C-27")
    async def test_an_order_that_is_not_declared_is_refused(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        for order in Order:
            await harness.provisioner.ensure_subscription(harness.channel, subscription(f"uid-{order.value}"))
            if order in channel.capabilities.orders:
                channel.attach(subscription(f"uid-{order.value}"), RecordingConsumer(), order=order)
            else:
                with pytest.raises(ValueError, match=order.value):
                    channel.attach(subscription(f"uid-{order.value}"), RecordingConsumer(), order=order)

    @clause("C-21", "C-25")
    async def test_leases_that_are_out_at_the_end_are_lost(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"))
        (lease,) = await subscriber.taken(1)
        await subscriber.cursor.detach(time.monotonic() + WITHIN_S)
        assert lease.lost
        assert not subscriber.cursor.settle(lease)
        assert not subscriber.cursor.release(lease)
        assert not subscriber.cursor.defer(lease, time.monotonic())
        assert subscriber.take() == []

    @clause("C-23")
    async def test_lag_counts_what_is_not_settled(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, *(event(str(number)) for number in range(3)))
        first, _, _ = await subscriber.taken(3)
        assert subscriber.settle(first)
        lag = subscriber.cursor.lag()
        assert lag.events in {2, None}
        if lag.events is not None:
            assert lag.oldest_s is None or lag.oldest_s >= 0
            assert lag.bytes is None or lag.bytes > 0

    @clause("C-23")
    async def test_lag_counts_what_was_never_taken(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        assert subscriber.take() == []
        await stored(channel, *(event(str(number)) for number in range(3)))
        async with asyncio.timeout(2 * WITHIN_S):
            while subscriber.cursor.lag().events not in {3, None}:
                await asyncio.sleep(0.02)

    @clause("C-24")
    async def test_a_paused_cursor_gives_nothing_keeps_its_leases_and_wakes_on_resume(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"), event("2"))
        (lease,) = await subscriber.taken(1, most=1)
        subscriber.cursor.pause()
        await stored(channel, event("3"))
        assert subscriber.take() == []
        assert subscriber.settle(lease)
        subscriber.consumer.woken.clear()
        subscriber.cursor.resume()
        async with asyncio.timeout(WITHIN_S):
            await subscriber.consumer.woken.wait()
        assert sorted(ids(await subscriber.taken(2))) == sorted({"1", "2", "3"} - {lease.event.id})

    @clause("C-25")
    async def test_a_closed_channel_refuses(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        await self.subscribed(harness, channel)
        await channel.aclose(time.monotonic() + WITHIN_S)
        with pytest.raises(ChannelUnavailableError):
            channel.publish([event("1")])

    @clause("C-15", "C-16", "C-25", "C-27")
    async def test_what_was_not_settled_survives_where_that_is_declared_and_nothing_else(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, *(event(str(number), key="k") for number in range(6)))
        leases = {lease.event.id: lease for lease in await subscriber.taken(6)}
        for settled in ("4", "0", "2", "3"):
            assert subscriber.settle(leases[settled])
        await channel.aclose(time.monotonic() + WITHIN_S)
        again = await harness.open("second")
        consumer = RecordingConsumer()
        reattached = Subscriber(again.attach(subscription("uid-1"), consumer), consumer)
        if again.capabilities.durable:
            await stored(again, event("new", key="k"))
            assert ids(await reattached.taken(3)) == ["1", "5", "new"]
        assert reattached.take() == []

    @clause("C-12", "C-21", "C-22")
    async def test_a_second_process_takes_over_what_it_is_given_and_nothing_is_lost(self, harness: ChannelHarness) -> None:
        if not harness.factory.shared:
            return
        first = await harness.open("first")
        one = await self.subscribed(harness, first)
        published = [str(number) for number in range(40)]
        await stored(first, *(event(id_, key=id_) for id_ in published))
        held = {lease.event.id: lease for lease in await one.taken(40)}
        settled = published[:10]
        for id_ in settled:
            assert one.settle(held[id_])

        second = await harness.open("second")
        consumer = RecordingConsumer()
        two = Subscriber(second.attach(subscription("uid-1"), consumer), consumer)
        await stored(second, *(event(f"new-{id_}", key=id_) for id_ in published))
        taken: dict[str, Any] = {}
        again: dict[str, Any] = {}
        everything = {*published[10:], *(f"new-{id_}" for id_ in published)}
        async with asyncio.timeout(3 * WITHIN_S):
            while everything - set(taken) - set(again) - {id_ for id_, lease in held.items() if not lease.lost}:
                taken |= {lease.event.id: lease for lease in one.take()}
                for lease in two.take():
                    assert lease.event.id not in again, "one live lease in a process"
                    again[lease.event.id] = lease
                await asyncio.sleep(0.01)
        lost = {id_ for id_, lease in held.items() if lease.lost}
        told = sorted(ids(one.consumer.gone))
        assert told == sorted(lost - set(settled)), "each is told of once"
        for id_, lease in held.items():
            if id_ not in settled:
                assert one.settle(lease) is (id_ not in lost)
        assert not set(settled) & set(again), "what was settled is not given again"
        for lease in again.values():
            assert two.settle(lease)

    @clause("C-12")
    async def test_an_event_that_was_accepted_elsewhere_is_told_of_once_before_it_is_given(self, harness: ChannelHarness) -> None:
        channel = await harness.open("first")
        subscriber = await self.subscribed(harness, channel)
        own = event("own")
        own.receipt = 7
        await stored(channel, own)
        (lease,) = await subscriber.taken(1)
        assert lease.event.receipt == 7
        assert subscriber.settle(lease)
        assert not subscriber.consumer.arrivals, "its receipt is of this process"
        if not harness.factory.shared:
            return
        elsewhere = await harness.open("second")
        other = event("other")
        other.receipt = 8
        await stored(elsewhere, other)
        (lease,) = await subscriber.taken(1)
        assert subscriber.consumer.arrivals == [("other", "second-8")]
        assert subscriber.cursor.release(lease)
        (lease,) = await subscriber.taken(1)
        assert subscriber.cursor.defer(lease, time.monotonic())
        (lease,) = await subscriber.taken(1)
        assert subscriber.settle(lease)
        assert subscriber.consumer.arrivals == [("other", "second-8")]

    @clause("C-27")
    async def test_an_event_almost_as_large_as_declared_is_stored_and_comes_as_it_went(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        data = bytes(range(256)) * ((channel.capabilities.max_event_bytes - 2_000) // 256)
        await stored(channel, event("large", key="k", data=data))
        (lease,) = await subscriber.taken(1)
        assert lease.event.attributes == event("large", key="k").attributes
        assert lease.event.data == data
        assert subscriber.settle(lease)

    @clause("C-26")
    async def test_only_a_volatile_channel_evicts_and_it_hands_over_what_it_lets_go(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        subscriber = await self.subscribed(harness, channel)
        await stored(channel, event("1"), event("2"), event("3"))
        (lease,) = await subscriber.taken(1, most=1)
        await subscriber.cursor.detach(time.monotonic() + WITHIN_S, discard="Shutdown")
        if channel.capabilities.durable:
            assert not subscriber.consumer.evictions
        else:
            assert lease.event.id not in [id_ for id_, _ in subscriber.consumer.evictions]
            assert len(subscriber.consumer.evictions) == 2
            assert {reason for _, reason in subscriber.consumer.evictions} == {"Shutdown"}

    @clause("C-13", "C-28")
    async def test_a_stuck_subscription_holds_nobody_else_back(self, harness: ChannelHarness) -> None:
        channel = await harness.open()
        stuck = await self.subscribed(harness, channel, "uid-stuck")
        quick = await self.subscribed(harness, channel, "uid-quick")
        for batch in range(10):
            await stored(channel, *(event(f"{batch}-{number}") for number in range(10)))
            for lease in await quick.taken(10):
                assert quick.settle(lease)
        assert quick.take() == []
        assert sorted(ids(await stuck.taken(100))) == sorted(f"{batch}-{number}" for batch in range(10) for number in range(10))
