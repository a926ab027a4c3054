"""From the ingress to a scripted sink and the journal, without a control plane: what becomes of an event."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from eventing.channels import Budget, channel_factories
from eventing.dataplane.table import ChannelTable
from eventing.delivery.connections import Connections
from eventing.delivery.worker import Engine
from eventing.ingress.receiver import Receiver
from eventing.ingress.routes import Routes
from eventing.journal import Journal
from eventing.journal.story import story
from eventing.testing.sinks import Answer, Sink
from eventing.wire.server import HttpServer

WITHIN_S = 10.0
FACTORY = channel_factories()["memory"]


class Plane:
    """A data plane of one channel, default/orders."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.journal = Journal(clock=time.monotonic, wall=time.time)
        self.connections = Connections(tasks)
        engine = Engine(journal=self.journal, connections=self.connections, tasks=tasks)
        routes = Routes()
        self.table = ChannelTable(engine=engine, routes=routes, budget=Budget(64 << 20), clock=time.monotonic, stop_s=1.0)
        self.server = HttpServer(Receiver(routes, self.journal), names=self.connections.names)
        self.port = 0

    async def start(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        await self.server.start(listener)
        return self

    def apply(self, *subscribers: dict[str, Any], annotations: dict[str, str] | None = None) -> None:
        metadata = {"name": "orders", "namespace": "default", "uid": "u", "creationTimestamp": "", "generation": 1}
        channel = {"metadata": {**metadata, "annotations": annotations or {}}, "spec": {"subscribers": list(subscribers)}}
        self.table.apply("key", FACTORY, channel)

    def post(self, id_: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        attributes = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": id_}
        connection.request("POST", "/default/orders", b'{"n":1}', {**attributes, "content-type": "application/json", **headers})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response

    async def send(self, *ids: str, **headers: str) -> None:
        for id_ in ids:
            assert (await asyncio.to_thread(self.post, id_, **headers)).status == 202

    async def ended(self, id_: str, subscription: str = "default/a") -> dict[str, Any]:
        """The delivery's story, once it has an end."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for match in (await story(self.journal, id_))["matches"]:
                    for delivery in match["deliveries"]:
                        if delivery["subscription"] == subscription and delivery["state"] != "pending":
                            return dict(delivery)
                await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        await self.server.aclose(1.0)
        await self.table.aclose(time.monotonic() + 1.0)
        self.connections.close()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as listening:
        yield listening


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with asyncio.TaskGroup() as tasks:
        running = await Plane(tasks).start()
        yield running
        await running.aclose()


def subscriber(name: str, url: str, *, concurrency: int = 10, reply: str = "", **delivery: Any) -> dict[str, Any]:
    return {
        "uid": f"uid-{name}",
        "name": name,
        "generation": 1,
        "subscriberUri": url,
        **({"replyUri": reply} if reply else {}),
        "delivery": {"backoffDelay": "PT0.01S", **delivery},
        "annotations": {"eventing-mesh.dev/concurrency": str(concurrency)},
    }


async def test_what_fails_is_tried_again_and_each_attempt_is_told(plane: Plane, sink: Sink) -> None:
    sink.script("/a", Answer(503), Answer(404), Answer(200))
    plane.apply(subscriber("a", f"{sink.url}/a"))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert delivery["state"] == "delivered"
    assert [attempt["status"] for attempt in delivery["attempts"]] == [503, 404, 200]
    assert "retry 1 of 5" in delivery["attempts"][0]["decision"]
    first, second, third = sink.at("/a")
    assert first.body == second.body == third.body == b'{"n":1}'
    assert first.header("prefer") == "reply"
    assert first.header("kn-namespace") == "default"


async def test_a_final_answer_is_not_tried_again(plane: Plane, sink: Sink) -> None:
    sink.always("/a", Answer(400, body=b"no"))
    plane.apply(subscriber("a", f"{sink.url}/a", deadLetterSink={"uri": f"{sink.url}/dls"}))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert (delivery["state"], delivery["reason"]) == ("dead-lettered", "NotRetriable")
    assert len(sink.at("/a")) == 1
    (letter,) = sink.at("/dls")
    assert letter.header("ce-knativeerrordest") == f"{sink.url}/a"
    assert letter.header("ce-knativeerrorcode") == "400"
    assert letter.header("ce-knativeerrordata") == "bm8="
    assert letter.body == b'{"n":1}'


async def test_without_a_dead_letter_sink_it_is_dropped_with_a_reason(plane: Plane, sink: Sink) -> None:
    sink.always("/a", Answer(500))
    plane.apply(subscriber("a", f"{sink.url}/a", retry=2))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert (delivery["state"], delivery["reason"]) == ("dropped", "NoDeadLetterSink")
    assert len(sink.at("/a")) == 3


async def test_nobody_at_home_is_told_as_such(plane: Plane) -> None:
    plane.apply(subscriber("a", "http://127.0.0.1:1/", retry=1))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert delivery["state"] == "dropped"
    assert [attempt["error"].split(":")[0] for attempt in delivery["attempts"][:2]] == ["ConnectFailed", "ConnectFailed"]


async def test_metadata_addresses_are_denied_for_good(plane: Plane) -> None:
    plane.apply(subscriber("a", "http://169.254.169.254/latest"))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert "AddressDenied" in delivery["attempts"][0]["error"]
    assert delivery["attempts"][1]["number"] == 0, "no second attempt"


async def test_a_reply_goes_on_and_a_202_never_carries_one(plane: Plane, sink: Sink) -> None:
    event = (("ce-specversion", "1.0"), ("ce-id", "r"), ("ce-type", "t"), ("ce-source", "/reply"))
    sink.script("/a", Answer(200, event, b"answer"), Answer(202, event, b"ignored"))
    plane.apply(subscriber("a", f"{sink.url}/a", reply=f"{sink.url}/reply"))
    await plane.send("1")
    assert (await plane.ended("1"))["state"] == "delivered"
    await plane.send("2")
    assert (await plane.ended("2"))["state"] == "delivered"
    (reply,) = sink.at("/reply")
    assert (reply.event_id, reply.body) == ("r", b"answer")


async def test_a_reply_that_cannot_be_handed_on_dead_letters_the_original(plane: Plane, sink: Sink) -> None:
    event = (("ce-specversion", "1.0"), ("ce-id", "r"), ("ce-type", "t"), ("ce-source", "/reply"))
    sink.always("/a", Answer(200, event, b"answer"))
    sink.always("/reply", Answer(400))
    dead_letter_sink = {"uri": f"{sink.url}/dls"}
    plane.apply(subscriber("a", f"{sink.url}/a", reply=f"{sink.url}/reply", deadLetterSink=dead_letter_sink))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert (delivery["state"], delivery["reason"]) == ("dead-lettered", "ReplyFailed")
    (letter,) = sink.at("/dls")
    assert (letter.event_id, letter.header("ce-knativeerrordest")) == ("1", f"{sink.url}/reply")


async def test_a_loop_ends_with_its_reason(plane: Plane, sink: Sink) -> None:
    """A subscriber that answers every event with an event to the same channel."""
    event = (("ce-specversion", "1.0"), ("ce-id", "again"), ("ce-type", "t"), ("ce-source", "/reply"))
    sink.always("/a", Answer(200, event, b""))
    plane.apply(subscriber("a", f"{sink.url}/a", reply=f"http://127.0.0.1:{plane.port}/default/orders"))
    await plane.send("1")
    async with asyncio.timeout(WITHIN_S):
        while not any(
            delivery["reason"] == "Loop"
            for match in (await story(plane.journal, "again"))["matches"]
            for delivery in match["deliveries"]
        ):
            await asyncio.sleep(0.02)
    assert len(sink.at("/a")) == 51


async def test_one_at_a_time_keeps_order_through_retries(plane: Plane, sink: Sink) -> None:
    sink.script("/a", Answer(503), Answer(200), Answer(503))
    plane.apply(subscriber("a", f"{sink.url}/a", concurrency=1))
    ids = [str(number) for number in range(10)]
    await plane.send(*ids)
    for id_ in ids:
        assert (await plane.ended(id_))["state"] == "delivered"
    arrived = [received.event_id for received in sink.at("/a")]
    assert list(dict.fromkeys(arrived)) == ids
    assert len(arrived) == 12


async def test_a_stuck_subscriber_holds_nobody_back(plane: Plane, sink: Sink) -> None:
    sink.always("/stuck", Answer(200, delay_s=60))
    plane.apply(subscriber("stuck", f"{sink.url}/stuck"), subscriber("a", f"{sink.url}/a"))
    ids = [str(number) for number in range(50)]
    await plane.send(*ids)
    for id_ in ids:
        assert (await plane.ended(id_))["state"] == "delivered"
    assert len(sink.at("/stuck")) <= 10, "its concurrency bounds it"


async def test_an_edit_applies_from_the_next_attempt_and_a_deletion_drops_what_is_pending(plane: Plane, sink: Sink) -> None:
    sink.always("/old", Answer(503))
    plane.apply(subscriber("a", f"{sink.url}/old", retry=1000))
    await plane.send("1")
    await sink.received(1, "/old")
    plane.apply(subscriber("a", f"{sink.url}/new"))
    assert (await plane.ended("1"))["state"] == "delivered"
    assert len(sink.at("/new")) == 1
    plane.apply(subscriber("a", f"{sink.url}/old", retry=1000, backoffDelay="PT5S"))
    await plane.send("2")
    await sink.until(lambda: any(received.event_id == "2" for received in sink.at("/old")))
    plane.apply()
    delivery = await plane.ended("2")
    assert (delivery["state"], delivery["reason"]) == ("dropped", "SubscriptionDeleted")
    await plane.send("3")
    assert json.loads(json.dumps(await story(plane.journal, "3")))["matches"][0]["deliveries"] == []


async def test_an_event_that_is_too_slow_to_answer_times_out(plane: Plane, sink: Sink) -> None:
    sink.script("/a", Answer(200, delay_s=60), Answer(200))
    plane.apply(subscriber("a", f"{sink.url}/a", timeout="PT0.2S"))
    await plane.send("1")
    delivery = await plane.ended("1")
    assert delivery["state"] == "delivered"
    assert delivery["attempts"][0]["error"].startswith("Timeout")
