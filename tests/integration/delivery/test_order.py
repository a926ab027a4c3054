"""Order and concurrency; nobody is held up by others. In virtual time."""

import asyncio

from eventing.testing.sinks import Answer, Received, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import PatientSink, run


def test_no_more_than_so_many_at_a_time() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=3))
        most = 0

        def answer(_received: Received) -> Answer:
            nonlocal most
            most = max(most, mesh.worker("s").in_flight, sink.open_connections)
            return Answer().after(0.1)

        sink.otherwise(answer)
        for number in range(20):
            await mesh.accepted(make_event(str(number)))
        await sink.received(20)
        await mesh.quiet()
        assert most == 3

    run(test)


def test_fewer_at_a_time_after_an_edit() -> None:
    """What is under way is not called back; from then on no more begins than is allowed."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.otherwise(Answer().after(1.0))
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=3))
        for number in range(20):
            await mesh.accepted(make_event(str(number)))
        await sink.received(3)
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=2))
        await sink.received(9)
        assert mesh.worker("s").in_flight == 2
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=5))
        await sink.received(12)
        assert mesh.worker("s").in_flight == 5

    run(test)


def test_one_at_a_time_keeps_the_order_through_retries() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=1, retry=3, backoff_delay="PT1S"))
        failing = {"2": 2, "3": 1, "7": 9}

        def answer(received: Received) -> Answer:
            id_ = received.event_id or ""
            failing[id_] = failing.get(id_, 0) - 1
            return Answer(500 if failing[id_] >= 0 else 200)

        sink.otherwise(answer)
        for number in range(10):
            await mesh.accepted(make_event(str(number)))
        await mesh.quiet(1000)
        ids = [received.event_id for received in sink.requests]
        assert list(dict.fromkeys(ids)) == [str(number) for number in range(10)]
        assert ids == ["0", "1", "2", "2", "2", "3", "3", "4", "5", "6", "7", "7", "7", "7", "8", "9"]

    run(test)


def test_order_is_kept_and_nothing_stalls_when_the_oldest_overflows() -> None:
    """The event whose retry holds the others back is the one that overflows."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=1, backoff_delay="PT1H"))
        mesh.bound(5)
        sink.script("/", Answer(500))
        for number in range(8):
            await mesh.accepted(make_event(str(number)))
            await asyncio.sleep(0.1)
        await mesh.quiet(60)
        assert (await mesh.ended("0"))[1] == "Overflow"
        ids = [received.event_id for received in sink.requests]
        assert ids == ["0", *map(str, range(1, 8))]

    run(test)


def test_a_stuck_subscriber_holds_up_nobody_of_its_origin() -> None:
    """More stuck attempts than the origin has connections: those who have nothing under way still get theirs."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/stuck", Answer.never())
        stuck = [subscriber(f"stuck{number}", sink.url + "/stuck", retry=0) for number in range(3)]
        well = [subscriber(f"well{number}", sink.url + f"/well{number}") for number in range(5)]
        mesh.channel("orders", *stuck, *well)
        for number in range(20):
            await mesh.accepted(make_event(str(number)))
        began = mesh.clock()
        async with asyncio.timeout(60):
            while any(mesh.worker(f"well{number}").pending for number in range(5)):
                await asyncio.sleep(0.05)
        assert mesh.clock() - began < 5, "and not after the 30 s that the stuck ones have"
        assert mesh.connections.open_connections <= 4 + 8
        await asyncio.sleep(100)
        assert mesh.connections.open_connections <= 4, "what is beyond the limit is closed again"

    run(test, per_origin=4)


def test_a_slow_subscriber_delays_no_other() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        async with PatientSink() as other:
            sink.otherwise(Answer.never())
            mesh.channel("orders", subscriber("stuck", sink.url + "/"), subscriber("well", other.url + "/"))
            for number in range(100):
                await mesh.accepted(make_event(str(number)))
            requests = await other.received(100)
            assert requests[-1].at - requests[0].at < 2
            assert mesh.worker("stuck").in_flight == 10
            assert mesh.worker("stuck").lag().events == 100

    run(test)
