"""Ledgers of a data plane: whatever happens to sinks, connections and subscriptions, every (event, subscription) ends exactly
once, with a reason."""

import asyncio
from collections import Counter
from typing import Any

from eventing.testing.clock import VirtualClock
from eventing.testing.sinks import Answer, Sink, failing_at_random
from tests.chaos.schedule import check, on_uvloop, scenario
from tests.support.data_plane import DataPlaneRig, make_event, subscriber


def test_sinks_that_fail_at_random_and_subscriptions_that_change(seed: int) -> None:
    ends = on_uvloop(lambda: scenario(seed))
    assert ends.total() > 5  # a channel that refuses on overflow, on a busy machine, takes few
    assert ends["DELIVERED"] > 0


def test_connections_that_are_cut(seed: int) -> None:
    """F11."""
    ends = asyncio.run(scenario(100 + seed, proxy=True))
    assert ends.total() > 5  # a channel that refuses on overflow, on a busy machine, takes few
    assert ends["DELIVERED"] > 0


def test_schedules_in_virtual_time(seed: int) -> None:
    """Where time jumps from timer to timer, things coincide that seldom do so otherwise."""
    for each in range(10 * seed, 10 * seed + 4):
        clock = VirtualClock()
        clock.run(scenario(each, clock=clock, events=40))


def test_a_channel_recreated_under_load() -> None:
    """F24: what was due to the old one ends there, what comes later is due to the new one only."""

    async def main() -> Counter[str]:
        async with Sink() as sink, DataPlaneRig() as mesh:
            sink.otherwise(failing_at_random(7, 0.2))
            receipts = {}
            for number in range(200):
                if number % 40 == 0:
                    uid = f"s{number}"
                    mesh.channel("orders", subscriber(uid, f"{sink.url}/{uid}", backoff_delay="PT0.01S"), recreated=True)
                text = await mesh.accepted(make_event(str(number)))
                receipts[int(text.rpartition("-")[2])] = str(number)
            await mesh.quiet()
            async with asyncio.timeout(10):
                while mesh.table._ending:
                    await asyncio.sleep(0.01)
            return await check(mesh, sink, receipts)

    ends = on_uvloop(main)
    assert set(ends) <= {"DELIVERED", "ChannelDeleted"}
    assert ends["DELIVERED"] >= 40


def test_a_subscription_deleted_in_the_moment_of_the_stop() -> None:
    async def main() -> Counter[str]:
        async with Sink() as sink, DataPlaneRig() as mesh:
            sink.otherwise(Answer(503))
            mesh.channel("orders", subscriber("s", f"{sink.url}/s", backoff_delay="PT60S"))
            text = await mesh.accepted(make_event("1"))
            await sink.received(1)
            mesh.channel("orders")
            await mesh.stop(0.5)
            return await check(mesh, sink, {int(text.rpartition("-")[2]): "1"})

    assert on_uvloop(main) == {"SubscriptionDeleted": 1}


def test_overflow_under_load_loses_nothing_silently() -> None:
    async def main() -> Counter[str]:
        async with Sink() as sink, DataPlaneRig() as mesh:
            sink.always("/slow", lambda _: Answer().after(0.02))
            mesh.channel(
                "orders",
                subscriber("slow", sink.url + "/slow", concurrency=2, dead_letter=sink.url + "/dead/slow"),
                subscriber("quick", sink.url + "/quick"),
            )
            served = next(iter(mesh.table._served.values()))
            channel: Any = served.channel
            channel.max_events, channel._clear_number, channel._scan_number = 20, 20, 10
            receipts = {}
            for number in range(300):
                text = await mesh.accepted(make_event(str(number)))
                receipts[int(text.rpartition("-")[2])] = str(number)
            await mesh.quiet()
            return await check(mesh, sink, receipts)

    ends = on_uvloop(main)
    assert ends["DEAD_LETTERED"] + ends["Overflow"] > 0
    assert ends["DELIVERED"] >= 300
