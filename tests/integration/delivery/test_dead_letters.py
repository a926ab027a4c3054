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
        assert await mesh.ended(await mesh.accepted(in_format(make_event(), sent)), step=0.1) == ("dead-lettered", "Exhausted")
        (letter,) = sink.at("/dead")
        attributes = json.loads(letter.body) if sent == "json" else letter.attributes
        assert attributes["knativeerrordest"] == sink.url + "/"
        assert attributes["knativeerrorcode"] == "503"
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
