"""What a dead letter says, and what becomes of those that nobody takes. In virtual time."""

import asyncio
import base64
import json

import pytest

from eventing.bindings.http import in_format
from eventing.testing.sinks import Answer, Received, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run


@pytest.mark.parametrize("sent", ["json", "binary"])
def test_a_dead_letter_says_where_and_why(sent: str) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead", retry=1))
        body = bytes(range(256)) * 10
        sink.otherwise(Answer(503, (), body))
        sink.always("/dead", Answer(202))
        event = in_format(make_event(knativeerrordest="http://earlier/", knativeerrordata="old"), sent)
        assert await mesh.ended(await mesh.accepted(event), step=0.1) == ("dead-lettered", "Exhausted")
        (letter,) = sink.at("/dead")
        attributes = json.loads(letter.body) if sent == "json" else letter.attributes
        assert attributes["knativeerrordest"] == sink.url + "/"
        assert attributes["knativeerrorcode"] == (503 if sent == "json" else "503"), "a CloudEvents Integer"
        assert base64.b64decode(attributes["knativeerrordata"], validate=True) == body[:768]
        assert (attributes["data"] if sent == "json" else json.loads(letter.body)) == {"n": 1}
        assert letter.header("prefer") is None
        assert mesh.worker("s").metrics.dead_lettered == 1

    run(test)


def test_a_dead_letter_sink_is_tried_as_often_and_its_reply_is_no_reply() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel(
            "orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", dead_letter=sink.url + "/dead", retry=2)
        )
        sink.otherwise(Answer(500))
        sink.script("/dead", Answer(500), Answer.cut(), Answer.reply(REPLY))
        assert await mesh.ended(await mesh.accepted(make_event()), step=0.1) == ("dead-lettered", "Exhausted")
        assert len(sink.at("/dead")) == 3
        assert sink.at("/reply") == []

    run(test)


def test_a_dead_letter_sink_that_takes_nothing_is_a_drop_with_a_reason() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead", retry=1))
        sink.otherwise(Answer(500))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, step=0.1) == ("dropped", "DeadLetterFailed")
        assert len(sink.at("/dead")) == 2
        assert "500" in (await mesh.deliveries(receipt))["s"]["attempts"][-1]["decision"]
        assert mesh.table.pending == 0

    run(test)


def test_a_dead_letter_sink_taken_away_in_the_last_moment() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        def answer(_received: Received) -> Answer:
            asyncio.get_running_loop().call_soon(mesh.channel, "orders", subscriber("s", sink.url + "/", retry=0))
            return Answer(500)

        for number in range(20):
            mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead", retry=0))
            sink.always("/", answer)
            assert (await mesh.ended(await mesh.accepted(make_event(str(number)))))[0] in {"dropped", "dead-lettered"}

    run(test)


@pytest.mark.parametrize("sent", ["json", "binary"])
def test_a_dead_letter_of_a_refusal_without_words_keeps_none_of_an_earlier_death(sent: str) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"))
        sink.script("/", Answer(400))
        event = in_format(make_event(knativeerrordest="http://earlier/", knativeerrordata="old", knativeerrorcode="503"), sent)
        assert await mesh.ended(await mesh.accepted(event)) == ("dead-lettered", "NotRetriable")
        (letter,) = sink.at("/dead")
        attributes = json.loads(letter.body) if sent == "json" else letter.attributes
        assert attributes["knativeerrordest"] == sink.url + "/"
        assert attributes["knativeerrorcode"] == (400 if sent == "json" else "400")
        assert "knativeerrordata" not in attributes

    run(test)


def test_an_edit_of_the_dead_letter_sink_applies_from_the_next_attempt() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer(400))
        sink.always("/old", Answer(503))
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/old", backoff_delay="PT10S"))
        receipt = await mesh.accepted(make_event())
        await sink.received(1, "/old")
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/new"))
        assert await mesh.ended(receipt, within=100, step=0.5) == ("dead-lettered", "NotRetriable")
        assert [received.path for received in sink.requests] == ["/", "/old", "/new"]

    run(test)


def test_deleting_the_subscription_ends_dead_letters_on_their_way_with_that_reason() -> None:
    """F26."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer(400))
        sink.always("/dead", Answer.never())
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead", timeout="PT1H"))
        receipt = await mesh.accepted(make_event())
        await sink.received(1, "/dead")
        mesh.channel("orders")
        assert await mesh.ended(receipt, within=200, step=0.5) == ("dropped", "SubscriptionDeleted")

    run(test)
