"""Subscriptions edited, deleted and recreated, channels deleted and recreated, with deliveries under way. In virtual time."""

import asyncio
from typing import Any

import pytest

from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, PatientSink, run


def test_an_edit_applies_from_the_next_attempt() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        async with PatientSink() as other:
            sink.otherwise(Answer(500))
            mesh.channel("orders", subscriber("s", sink.url + "/", backoff_delay="PT10S"))
            receipt = await mesh.accepted(make_event())
            await sink.received(1)
            mesh.channel("orders", subscriber("s", other.url + "/new", dead_letter=sink.url + "/dead"))
            assert await mesh.ended(receipt, within=100, step=0.5) == ("delivered", "")
            assert len(sink.requests) == 1
            assert len(other.at("/new")) == 1

    run(test)


@pytest.mark.parametrize("answer", [Answer().after(1), Answer(500).after(1), Answer.reply(REPLY).after(1)])
def test_after_an_edit_nothing_goes_to_the_old_address(answer: Answer) -> None:
    """Connections under way at the time of the edit belong to the old origin for good."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        async with PatientSink() as other:
            sink.otherwise(answer)
            mesh.channel("orders", subscriber("s", sink.url + "/", reply=other.url + "/reply"))
            for number in range(30):
                await mesh.accepted(make_event(str(number)))
            await sink.received(10)
            mesh.channel("orders", subscriber("s", other.url + "/", reply=other.url + "/reply"))
            await mesh.quiet(100)
            assert len(sink.requests) == 10
            ids = {received.event_id for received in (*sink.requests, *other.at("/"))}
            assert ids >= {str(number) for number in range(30)}
            await asyncio.sleep(100)
            assert mesh.connections.open_connections == 0, "idle connections do not stay for ever"

    run(test)


def test_an_edit_away_from_a_dead_origin_costs_no_attempt() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", "http://192.0.2.1/", retry=0))
        receipt = await mesh.accepted(make_event())
        await asyncio.sleep(1)
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=0))
        assert await mesh.ended(receipt, within=100) == ("delivered", "")
        await asyncio.sleep(30)
        assert len((await mesh.deliveries(receipt))["s"]["attempts"]) == 1

    async def hanging(origin: Any, factory: Any) -> None:
        if origin.host == "192.0.2.1":
            await asyncio.sleep(1000)
        await asyncio.get_running_loop().create_connection(factory, origin.host, origin.port)

    run(test, connector=hanging)


def test_deletion_drops_what_is_pending_with_its_reason() -> None:
    """F26."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer(500).after(2))
        here = subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"), subscriber("t", sink.url + "/t")
        mesh.channel("orders", *here)
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(30)]
        await sink.received(10, "/")
        mesh.channel("orders", here[1])
        for receipt in receipts:
            assert await mesh.ended(receipt, within=100, step=0.1) == ("dropped", "SubscriptionDeleted")
            assert await mesh.ended(receipt, "t") == ("delivered", "")
        assert len(sink.at("/")) == 10
        assert sink.at("/dead") == []
        assert mesh.table.pending == 0

    run(test)


def test_an_attempt_under_way_at_deletion_may_still_succeed() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.otherwise(Answer().after(2))
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        receipt = await mesh.accepted(make_event())
        await sink.received(1)
        mesh.channel("orders")
        assert await mesh.ended(receipt, step=0.1) == ("delivered", "")

    run(test)


def test_a_subscription_may_come_back_at_once_and_is_a_new_one() -> None:
    """F24: removed and added with the same uid while attempts of the old one are under way."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer().after(5))
        entry = subscriber("s", sink.url + "/")
        mesh.channel("orders", entry)
        first = await mesh.accepted(make_event("1"))
        await sink.received(1)
        for _ in range(3):
            mesh.channel("orders")
            mesh.channel("orders", entry)
        await asyncio.sleep(0.01)
        second = await mesh.accepted(make_event("2"))
        assert await mesh.ended(first, within=60, step=0.1) == ("delivered", "")
        assert await mesh.ended(second, within=60, step=0.1) == ("delivered", "")
        assert len(sink.requests) == 2

    run(test)


def test_a_deleted_channel_drops_and_a_recreated_one_starts_afresh() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer.never())
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        receipt = await mesh.accepted(make_event("1"))
        waiting = [await mesh.accepted(make_event(f"w{number}")) for number in range(20)]
        mesh.channel("orders", subscriber("s", sink.url + "/new"), recreated=True)
        for late in waiting[10:]:
            assert await mesh.ended(late) == ("dropped", "ChannelDeleted")
        assert await mesh.ended(await mesh.accepted(make_event("2"))) == ("delivered", "")
        assert [received.event_id for received in sink.at("/new")] == ["2"]
        mesh.remove("orders")
        assert (await mesh.publish(make_event("3"))).status == 404
        assert await mesh.ended(receipt, within=100, step=0.5) == ("dropped", "ChannelDeleted")

    run(test)
