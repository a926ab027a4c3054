"""What may happen to any broker, and to those who read from it: told once, played with each back end.

Each scene ends with balanced books: whatever was answered 202 arrives; what could not be stored was answered 503 and nothing else;
what comes again was on its way, or delivered within a commit interval, when the fault began.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from eventing.testing.proxy import TcpProxy
from eventing.testing.sinks import Answer, Received
from tests.chaos.rig import Rig
from tests.support.brokers import Broker

__all__ = [
    "IMPATIENT",
    "absent_at_the_start",
    "broker_killed_and_started",
    "connections_cut_and_half_open",
    "data_plane_killed",
    "data_planes_coming_and_going",
    "poison_events",
]

# Retries that are soon at their end.
IMPATIENT: Final = {"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.05S", "timeout": "PT10S"}


async def broker_killed_and_started(rig: Rig, broker: Broker) -> None:
    """Under load, when there are Subscriptions."""
    async with rig.load():
        await rig.traffic.until(100)
        rig.fault()
        await asyncio.to_thread(broker.kill)
        await rig.until_refused()
        await asyncio.to_thread(broker.start)
        await rig.traffic.until(100)
    ends = await rig.balance()
    assert ends["delivered"] >= 300
    assert rig.traffic.statuses <= {202, 503}
    await rig.stop()


async def connections_cut_and_half_open(rig: Rig, proxy: TcpProxy) -> None:
    """The proxy stands before the broker."""
    await rig.subscribe()
    async with rig.load():
        await rig.traffic.until(50)
        for _ in range(3):
            rig.fault()
            proxy.cut()
            await rig.traffic.until(30)
        rig.fault()
        proxy.cut_after(20_000)  # in the middle of what is being said
        await rig.traffic.until(100)
        rig.fault()
        proxy.half_open()
        await rig.until_refused()
        rig.fault()
        await proxy.resume()
        proxy.cut()  # what hung is of no use any more
        await rig.traffic.until(50)
    ends = await rig.balance()
    assert ends["delivered"] >= 300
    await rig.stop()


async def absent_at_the_start(rig: Rig, broker: Broker, address: str, reason: str = "") -> None:
    """The broker is started when the channel has said that it is not there, and where it should be."""
    condition = await rig.until_condition("False", reason=reason)
    assert address in condition["message"], condition
    subscribing = asyncio.create_task(rig.changes.subscribe("ordered", ordered=True))
    await asyncio.to_thread(broker.start)
    await rig.changes.channel_ready()
    await subscribing
    async with rig.load():
        await rig.traffic.until(50)
    ends = await rig.balance()
    assert ends["delivered"] >= 50
    assert ends["again"] == 0
    await rig.stop()


async def data_plane_killed(rig: Rig) -> None:
    """Three times, in the middle of deliveries."""
    async with rig.load():
        for _ in range(3):
            await rig.traffic.until(rig.rand.randint(60, 150))
            await asyncio.sleep(rig.rand.random() * 0.1)
            await rig.signal_data_plane(signal.SIGKILL)
        await rig.traffic.until(60)
    ends = await rig.balance()
    assert ends["delivered"] >= 450
    await rig.stop()


async def data_planes_coming_and_going(rig: Rig, workers: int) -> None:
    """Each of them is killed or stopped twice, on average."""
    async with rig.load():
        for _ in range(2 * workers):
            await rig.traffic.until(rig.rand.randint(10, 60))
            await rig.signal_data_plane(rig.rand.choice([signal.SIGKILL, signal.SIGTERM]), workers=workers)
        await rig.pids(workers)
        await rig.traffic.until(60)
    ends = await rig.balance()
    assert ends["delivered"] >= 150
    assert len({each.process for each in rig.traffic.accepted}) >= workers
    await rig.stop()


async def poison_events(rig: Rig, garbage: Callable[[], Awaitable[int]]) -> set[str]:
    """Every fourth event is refused for ever, and `garbage` puts what is no event beside them, and says how many: all others
    arrive, in order. Returns the ids that the mesh has given to what was no event. The rig has IMPATIENT, and a share of 0."""
    strange: set[str] = set()

    def refuse_every_fourth(received: Received) -> Answer:
        id_ = received.event_id or ""
        if not id_.isdigit():
            strange.add(id_)
            return Answer()
        return Answer(500) if int(id_) % 4 == 0 else Answer()

    ordered = await rig.changes.subscribe("ordered", ordered=True)
    unordered = await rig.changes.subscribe("unordered")
    for each in (ordered, unordered):
        rig.sink.always(each.path, refuse_every_fourth)
    async with rig.load():
        await rig.traffic.until(40)
        count = await garbage()
        await rig.traffic.until(60)
    await rig.sink.until(lambda: len(strange) == count, within=30, what=f"{count} that are no events")
    ends = await rig.balance(others=strange)
    refused = {each.id for each in rig.traffic.accepted if each.number % 4 == 0}
    for each in (ordered, unordered):
        assert refused <= rig.sink.ids(each.dead)
    assert ends["again"] == 0
    await rig.stop()
    return strange
