"""Events in answers: where they go, what is none, and what follows when they cannot be handed on. In virtual time."""

import asyncio
import json

import pytest

from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run


@pytest.mark.parametrize("structured", [False, True])
def test_a_reply_goes_to_the_reply_address(structured: bool) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply"))
        body = json.dumps(REPLY | {"data": {"x": 1}}).encode()
        sink.script(
            "/",
            Answer(200, (("content-type", "Application/CloudEvents+json"),), body)
            if structured
            else Answer.reply(REPLY, b'{"x": 1}'),
        )
        assert await mesh.ended(await mesh.accepted(make_event())) == ("delivered", "")
        (reply,) = sink.at("/reply")
        assert reply.event_id == "r"
        assert reply.header("prefer") is None
        assert reply.header("knative-eventing-hops") == "2"
        assert json.loads(reply.body) == ({"x": 1} if not structured else json.loads(body))
        assert mesh.worker("s").metrics.replied == 1

    run(test)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("202", Answer(202, tuple((f"ce-{name}", value) for name, value in REPLY.items()))),
        ("201", Answer(201, tuple((f"ce-{name}", value) for name, value in REPLY.items()))),
        ("text", Answer(200, (("content-type", "text/plain"),), b"OK")),
        ("json", Answer(200, (("content-type", "application/json"),), b"{}")),
        ("batch", Answer(200, (("content-type", "application/cloudevents-batch+json"),), b"[]")),
    ],
)
def test_what_is_no_reply(name: str, answer: Answer) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply"))
        sink.script("/", answer)
        assert await mesh.ended(await mesh.accepted(make_event())) == ("delivered", "")
        await asyncio.sleep(1)
        assert sink.at("/reply") == [], name
        assert len(sink.requests) == 1

    run(test)


def test_without_a_reply_address_a_reply_is_dropped() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        sink.script("/", Answer.reply(REPLY))
        assert await mesh.ended(await mesh.accepted(make_event())) == ("delivered", "")
        assert len(sink.requests) == 1

    run(test)


def test_a_broken_reply_is_a_broken_answer() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", retry=2))
        broken = {**REPLY, "source": "not a uri"}
        sink.script("/", Answer.reply(broken), Answer(200, (("content-type", "application/cloudevents+json"),), b"\xff"))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, step=0.1) == ("delivered", "")
        attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
        assert [attempt["error"].partition(":")[0] for attempt in attempts] == ["InvalidReply", "InvalidReply", ""]
        assert "ce-source" in attempts[0]["error"]
        assert sink.at("/reply") == []

    run(test)


@pytest.mark.parametrize(
    ("subscriber_fails", "reply_fails", "end"),
    [(1, 0, "delivered"), (1, 1, "delivered"), (1, 2, "dead-lettered"), (2, 0, "dead-lettered")],
)
def test_a_reply_is_tried_as_often_and_the_event_itself_is_dead_lettered(
    subscriber_fails: int, reply_fails: int, end: str
) -> None:
    """CDP-32."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel(
            "orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", dead_letter=sink.url + "/dead", retry=1)
        )
        sink.script("/", *[Answer(500)] * subscriber_fails, Answer.reply(REPLY))
        sink.script("/reply", *[Answer(503, (), b"no room")] * reply_fails)
        receipt = await mesh.accepted(make_event())
        state, reason = await mesh.ended(receipt, step=0.1)
        assert state == end
        if end == "delivered":
            assert sink.at("/dead") == []
            assert len(sink.at("/reply")) == reply_fails + 1
        else:
            (letter,) = sink.at("/dead")
            assert letter.event_id == "1"
            where = "/reply" if reply_fails else "/"
            assert letter.attributes["knativeerrordest"] == sink.url + where
            assert reason == ("ReplyFailed" if reply_fails else "Exhausted")

    run(test)


def test_without_a_subscriber_the_event_itself_goes_to_the_reply_address() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", None, reply=sink.url + "/reply"), subscriber("t", None))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt) == ("delivered", "")
        assert [received.path for received in sink.requests] == ["/reply"]
        assert await mesh.ended(receipt, "t") == ("dropped", "NoDeadLetterSink")

    run(test)
