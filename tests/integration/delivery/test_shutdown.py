"""A data plane that stops: what is finished, what is accounted for, and by when. In virtual time."""

import asyncio

import pytest

from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run


@pytest.mark.parametrize("dead_letter", [True, False])
def test_stopping_finishes_what_is_in_flight_and_accounts_for_the_rest(dead_letter: bool) -> None:
    """F28: what could not be finished goes to the dead-letter sink, else is dropped with Shutdown; within the deadline."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        options = {"dead_letter": sink.url + "/dead"} if dead_letter else {}
        sink.always("/slow", Answer().after(2))
        sink.always("/failing", Answer(500))
        mesh.channel(
            "orders",
            subscriber("slow", sink.url + "/slow", concurrency=5, **options),
            subscriber("failing", sink.url + "/failing", backoff_delay="PT1H", **options),
        )
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(300)]
        await sink.received(300, "/failing")
        began = mesh.clock()
        await mesh.stop(5.0, 2.0)
        assert mesh.clock() - began < 7.5
        await asyncio.sleep(0.01)
        ends: dict[tuple[str, str, str], int] = {}
        for receipt in receipts:
            for uid, delivery in (await mesh.deliveries(receipt)).items():
                key = uid, delivery["state"], delivery["reason"]
                ends[key] = ends.get(key, 0) + 1
        given = "dead-lettered" if dead_letter else "dropped"
        assert ends == {("failing", given, "Shutdown"): 300, ("slow", "delivered", ""): 5, ("slow", given, "Shutdown"): 295}
        assert len(sink.at("/dead")) == (595 if dead_letter else 0)

    run(test)


def test_stopping_does_not_wait_for_a_stuck_subscriber_or_dead_letter_sink() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.otherwise(Answer.never())
        sink.always("/failing", Answer(500))
        mesh.channel(
            "orders",
            subscriber("stuck", sink.url + "/stuck", dead_letter=sink.url + "/dead"),
            subscriber("reply", sink.url + "/replying", reply=sink.url + "/reply"),
            subscriber("failing", sink.url + "/failing", retry=0, dead_letter=sink.url + "/dead", timeout="PT1H"),
        )
        sink.always("/replying", Answer.reply(REPLY))
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(50)]
        await sink.received(10, "/stuck")
        await sink.received(10, "/dead")
        await sink.received(10, "/reply")
        mesh.channel("orders", subscriber("reply", sink.url + "/replying", reply=sink.url + "/reply"))
        began = mesh.clock()
        await mesh.stop(1.0, 1.0)
        assert mesh.clock() - began < 3
        await asyncio.sleep(0.5)
        for receipt in receipts:
            for uid, delivery in (await mesh.deliveries(receipt)).items():
                assert delivery["state"] == "dropped", (uid, delivery)
                assert delivery["reason"] in {"Shutdown", "SubscriptionDeleted"}
        assert len([task for task in asyncio.all_tasks() if "worker" in repr(task.get_coro())]) == 0

    run(test)
