"""Events that go in a circle are cut, with the reason in the trace: every circle that manifests can build (peers F33)."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from eventing.event import Event
from eventing.ingress.receiver import HOPS_MAX
from eventing.kube import KubeClient
from eventing.kube.cluster import load_kubeconfig
from eventing.resources.conditions import is_ready
from eventing.resources.messaging import SUBSCRIPTION
from eventing.runtime.apply import apply
from eventing.runtime.manifests import parse
from eventing.runtime.mesh import Mesh
from eventing.runtime.mesh_client import MeshClient
from eventing.testing.sinks import Answer, Sink
from tests.support.waiting import DEADLINE_S

CIRCLES = ("there", "back", "itself", "answered", "failing", "handed-on")
REF = "{{ref: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {}}}}}"
# Each channel of the tests has one Subscription, named after it: subscriber, reply, dead-letter sink.
MANIFEST = """\
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {{name: {name}}}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: {name}}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {name}}}
  subscriber: {subscriber}
  {reply}
  delivery: {{retry: 0{dead_letter}}}
---
"""


def manifest(name: str, subscriber: str, *, reply: str = "", dead_letter: str = "") -> str:
    def place(where: str) -> str:
        return f'{{uri: "{where}"}}' if where.startswith("http") else REF.format(where)

    return MANIFEST.format(
        name=name,
        subscriber=place(subscriber),
        reply=f"reply: {place(reply)}" if reply else "",
        dead_letter=f", deadLetterSink: {place(dead_letter)}" if dead_letter else "",
    )


@asynccontextmanager
async def forwarder() -> AsyncIterator[tuple[str, list[str]]]:
    """A subscriber that hands on what it gets to the address in its path, headers of Knative's included, and answers 200: a function
    that puts its events back where they came from. Its URL, and what the mesh answered to it."""
    answers: list[str] = []

    async def hand_on(request: web.Request) -> web.Response:
        headers = {
            name: value for name, value in request.headers.items() if name.lower().startswith(("ce-", "content-type", "knative-"))
        }
        body = await request.read()
        async with aiohttp.ClientSession() as session, session.post(request.query["to"], data=body, headers=headers) as answer:
            answers.append(f"{answer.status} {answer.headers.get('eventing-reason', '')}".strip())
        return web.Response()

    application = web.Application()
    application.router.add_post("/", hand_on)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", answers
    finally:
        await runner.cleanup()


async def deliveries(client: MeshClient, identity: str) -> list[dict[str, Any]]:
    return [
        delivery for match in (await asyncio.to_thread(client.trace, identity))["matches"] for delivery in match["deliveries"]
    ]


async def circle(mesh: Mesh, channel: str) -> list[dict[str, Any]]:
    """Send an event that goes round, and wait until nothing of it is pending any more; its deliveries, in the order in which the
    channels took it."""
    numbers = itertools.count()
    with mesh.client() as client:
        async with asyncio.timeout(40):
            while True:
                event = Event({"specversion": "1.0", "id": f"{channel}-{next(numbers)}", "source": "/s", "type": "t"}, b"{}")
                answer = await asyncio.to_thread(client.send, "default", channel, event)
                found = await deliveries(client, event.id) if answer.accepted else []
                while any(delivery["state"] == "pending" for delivery in found):
                    await asyncio.sleep(0.02)
                    found = await deliveries(client, event.id)
                if len(found) > 1:
                    return found
                await asyncio.sleep(0.05)


@pytest.fixture
async def mesh(sink: Sink, tmp_path: Path) -> AsyncIterator[tuple[Mesh, list[str]]]:
    async with forwarder() as (url, answers):
        sink.always("/echo", lambda received: Answer.reply(
            {"specversion": "1.0", "id": received.event_id or "", "source": "/echo", "type": "reply"}))  # fmt: skip
        sink.always("/fails", Answer(500))
        text = "".join(
            (
                manifest("there", "back"),
                manifest("back", "there"),
                manifest("itself", "itself", dead_letter=f"{sink.url}/dead"),
                manifest("answered", f"{sink.url}/echo", reply="answered"),
                manifest("failing", f"{sink.url}/fails", dead_letter="failing"),
            )
        )
        path = tmp_path / "circles.yaml"
        path.write_text(text)
        async with Mesh(manifests=[str(path)]) as running:
            again = manifest("handed-on", f"{url}?to={running.ingress_url}/default/handed-on")
            await _apply(running, again)
            await _all_ready(running)
            yield running, answers


async def _apply(mesh: Mesh, text: str) -> None:
    client = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="test")
    try:
        await apply(client, parse(text, "test"))
    finally:
        await client.aclose()


async def _all_ready(mesh: Mesh) -> None:
    """A circle of which a part is not there yet is none."""
    client = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="test")
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                subscriptions, _ = await client.list(SUBSCRIPTION)
                if len(subscriptions) == len(CIRCLES) and all(map(is_ready, subscriptions)):
                    return
                await asyncio.sleep(0.05)
    finally:
        await client.aclose()


async def test_every_circle_is_cut_and_the_trace_says_why(mesh: tuple[Mesh, list[str]], sink: Sink) -> None:
    running, answers = mesh
    # From channel to channel, there and back.
    found = await circle(running, "there")
    assert len(found) == HOPS_MAX + 1
    assert {delivery["state"] for delivery in found[:-1]} == {"delivered"}
    assert (found[-1]["state"], found[-1]["reason"]) == ("dropped", "Loop")

    # A channel that is subscribed to itself; the event is not lost: the dead-letter sink has it.
    found = await circle(running, "itself")
    assert len(found) == HOPS_MAX + 1
    assert (found[-1]["state"], found[-1]["reason"]) == ("dead-lettered", "Loop")
    (letter,) = await sink.received(1, "/dead")
    assert letter.attributes["knativeerrorcode"] == "400"
    assert letter.attributes["id"].startswith("itself-")

    # Replies that go where the event came from.
    found = await circle(running, "answered")
    assert len(found) == HOPS_MAX + 1
    assert (found[-1]["state"], found[-1]["reason"]) == ("dropped", "Loop")

    # Dead letters that go where the event came from.
    found = await circle(running, "failing")
    assert len(found) == HOPS_MAX + 1
    assert {delivery["state"] for delivery in found[:-1]} == {"dead-lettered"}
    assert (found[-1]["state"], found[-1]["reason"]) == ("dropped", "DeadLetterFailed")

    # A subscriber that puts its event back, with the headers that came along: it is told that it goes in a circle.
    found = await circle(running, "handed-on")
    assert len(found) == HOPS_MAX + 1
    assert answers[-1] == "400 Loop"
    assert set(answers[:-1]) == {"202"}
