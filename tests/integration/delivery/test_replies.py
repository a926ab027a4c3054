"""Events in answers: where they go, what is none, and what follows when they cannot be handed on. In virtual time."""

import asyncio
import json
from dataclasses import replace

import pytest

from eventing.testing.sinks import Answer, Sink
from eventing.wire.client import ClientLimits
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run, waits


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
        structured = (("content-type", "application/cloudevents+json"),)
        sink.script("/", Answer.reply(broken), Answer(200, structured, b"\xff"))
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


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("too large", Answer.reply(REPLY, b"x" * 5000)),
        ("too large, structured", Answer(200, (("content-type", "application/cloudevents+json"),), b"{" + b" " * 5000)),
        ("with endless headers", replace(Answer.reply(REPLY), padding_headers=1 << 20)),
    ],
)
def test_a_reply_that_is_too_much_is_not_taken_for_none(name: str, answer: Answer) -> None:
    """What was read of it is no event, and the event that it answers is not delivered as the subscriber meant it."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        reply = sink.url + "/reply"
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=reply, dead_letter=sink.url + "/dead", retry=1))
        sink.always("/", answer)
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, step=0.1) == ("dead-lettered", "Exhausted"), name
        assert (await mesh.deliveries(receipt))["s"]["attempts"][0]["error"].startswith("InvalidReply: ")
        assert len(sink.at("/")) == 2
        assert sink.at("/reply") == []

    run(test, client_limits=ClientLimits(body_bytes=1000))


def test_a_reply_that_nobody_takes_fails_the_whole_delivery_which_is_tried_again() -> None:
    """Control-plane contract, "Event Delivery", 4.1. Each of the delivery's attempts gives the reply as many of its own."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", retry=1, backoff_delay="PT1S"))
        sink.always("/", Answer.reply(REPLY))
        sink.script("/reply", Answer(503), Answer(503))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, step=0.1) == ("delivered", "")
        assert [received.path for received in sink.requests] == ["/", "/reply", "/reply", "/", "/reply"]
        assert waits(sink.requests) == [0, 1, 1, 0]
        reply, first, second = (await mesh.deliveries(receipt))["s"]["attempts"]
        assert (reply["outcome"], reply["number"], reply["status"]) == ("replying", 1, 503)
        assert first["error"] == f"ReplyFailed: {sink.url}/reply: 503"
        assert first["decision"].startswith("ReplyFailed → retry 1 of 1 in 1.0 s")
        assert (second["number"], second["decision"]) == (2, "delivered: 200")

    run(test)


@pytest.mark.parametrize("answer", [Answer(400, (), b"no"), Answer(302)])
def test_a_reply_that_is_refused_for_good_is_not_tried_again(answer: Answer) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", dead_letter=sink.url + "/dead"))
        sink.always("/", Answer.reply(REPLY))
        sink.always("/reply", answer)
        assert await mesh.ended(await mesh.accepted(make_event())) == ("dead-lettered", "ReplyFailed")
        assert [received.path for received in sink.requests] == ["/", "/reply", "/dead"]
        (letter,) = sink.at("/dead")
        assert letter.event_id == "1"
        assert letter.attributes["knativeerrordest"] == sink.url + "/reply"
        assert letter.attributes["knativeerrorcode"] == str(answer.status)

    run(test)


def test_an_edit_of_the_reply_address_applies_from_the_next_attempt() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        sink.always("/", Answer.reply(REPLY))
        sink.always("/old", Answer(503))
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/old", backoff_delay="PT10S"))
        receipt = await mesh.accepted(make_event())
        await sink.received(1, "/old")
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/new"))
        assert await mesh.ended(receipt, within=100, step=0.5) == ("delivered", "")
        assert [received.path for received in sink.requests] == ["/", "/old", "/new"]

    run(test)


def test_without_a_subscriber_the_event_itself_goes_to_the_reply_address() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", None, reply=sink.url + "/reply"), subscriber("t", None))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt) == ("delivered", "")
        (received,) = sink.requests
        assert received.path == "/reply"
        assert received.header("prefer") is None, "replies are not offered there (control-plane contract)"
        assert await mesh.ended(receipt, "t") == ("dropped", "NoDeadLetterSink")

    run(test)
