"""A subscription that falls behind its bound, and the byte budget of the process. In virtual time."""

import asyncio

from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import run


def test_overflow_drops_the_oldest_to_the_dead_letter_sink_first() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/stuck", Answer.never())
        mesh.channel(
            "orders",
            subscriber("s", sink.url + "/stuck", timeout="PT1H", dead_letter=sink.url + "/dead"),
            subscriber("well", sink.url + "/well"),
        )
        mesh.bound(50)
        receipts = []
        for number in range(80):
            receipts.append(await mesh.accepted(make_event(str(number))))
            while mesh.worker("well").lag().events:  # it keeps up, however busy the machine is
                await asyncio.sleep(0.01)
        await sink.received(30, "/dead")
        await sink.received(80, "/well")
        for receipt in receipts[10:40]:  # the sink has it a moment before the mesh has its answer
            await mesh.ended(receipt, step=0.01)
        ends = [(await mesh.deliveries(receipt))["s"] for receipt in receipts]
        states = [(end["state"], end["reason"]) for end in ends]
        assert states[:10] == [("pending", "")] * 10, "being attempted"
        assert states[10:40] == [("dead-lettered", "Overflow")] * 30
        assert states[40:] == [("pending", "")] * 40
        assert mesh.worker("s").lag().events == 50

    run(test)


def test_overflow_refuses_where_the_channel_says_so_and_nothing_is_half_stored() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/stuck", Answer.never())
        mesh.channel(
            "orders",
            subscriber("s", sink.url + "/stuck", timeout="PT1H"),
            subscriber("well", sink.url + "/well"),
            overflow="refuse",
        )
        mesh.bound(20)
        statuses = [(await mesh.publish(make_event(str(number)))).status for number in range(25)]
        assert statuses == [202] * 20 + [503] * 5
        await sink.received(20, "/well")
        await asyncio.sleep(1)
        assert len(sink.at("/well")) == 20
        answer = await mesh.publish(make_event("x"))
        assert answer.headers["retry-after"] == "1"

    run(test)


def test_the_byte_budget_of_the_process_is_answered_503_and_recovers() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer(500))
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=1, backoff_delay="PT1M"))
        statuses = [(await mesh.publish(make_event(str(number), b"x" * 5000))).status for number in range(20)]
        assert statuses[:15] == [202] * 15
        assert statuses[-1] == 503
        assert mesh.budget.recount() <= mesh.budget.limit
        await asyncio.sleep(200)
        assert (await mesh.publish(make_event("again", b"x" * 5000))).status == 202

    run(test, budget=100_000)
