"""CloudEvents' own SDKs, JavaScript's and Python's, send to the mesh, subscribe to it and reply, in both modes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Sink

pytestmark = pytest.mark.node
PEER = Path(__file__).parents[1] / "support" / "cloudevents_js" / "peer.mjs"
COMMON = {"specversion": "1.0", "source": "/shop", "type": "com.example.order", "subject": "a/b", "partitionkey": "42"}
DATA: dict[str, Any] = {
    "application/json": {"n": 1, "text": "größer €", "list": [None, True, 1.5]},
    "text/plain": "plain größer €",
    "application/octet-stream": {"base64": base64.b64encode(bytes(range(256))).decode()},
}
MODES = ["binary", "structured"]


class Peer:
    """The node program: told what to send, it says what it was answered and what it has received."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0
        self.answers: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.received: list[dict[str, Any]] = []
        self.faults: list[dict[str, str]] = []
        self._news = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "port" in said:
                self.port = said["port"]
                self._ready.set_result(None)
            elif "answer" in said:
                self.answers.put_nowait(said["answer"])
            else:
                (self.faults if "fault" in said else self.received).append(said)
                self._news.set()

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            await self._ready

    async def send(self, event: dict[str, Any], mode: str, url: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"send": event, "mode": mode, "to": url}).encode() + b"\n")
        async with asyncio.timeout(30):
            answer = await self.answers.get()
        assert answer.get("receipt"), answer

    async def got(self, identity: str) -> dict[str, Any]:
        """What it has received with this id."""
        async with asyncio.timeout(30):
            while True:
                assert not self.faults
                for said in self.received:
                    if said["received"]["id"] == identity:
                        return said
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def node() -> AsyncIterator[Peer]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", PEER, stdin=pipe, stdout=pipe, limit=1 << 20)
    peer = Peer(process)
    reading = asyncio.create_task(peer.read())
    try:
        await peer.ready()
        yield peer
    finally:
        assert process.stdin is not None
        process.stdin.close()  # which ends it
        await process.wait()
        await reading


MANIFESTS = """\
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {{name: {name}}}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: {name}-{subscriber}}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {name}}}
  subscriber: {{uri: "{uri}"}}
  {reply}
---
"""


@asynccontextmanager
async def mesh(peer: Peer, sink: Sink, where: Path) -> AsyncIterator[Mesh]:
    """`orders` goes to the node program and to the sink; what is sent to `ask-MODE` is answered in that mode, into `orders`."""
    at = f"http://127.0.0.1:{peer.port}"
    answers = "reply: {ref: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}}"
    text = MANIFESTS.format(name="orders", subscriber="node", uri=f"{at}/", reply="")
    text += MANIFESTS.format(name="orders", subscriber="sink", uri=f"{sink.url}/", reply="")
    for mode in MODES:
        text += MANIFESTS.format(name=f"ask-{mode}", subscriber="node", uri=f"{at}/echo/{mode}", reply=answers)
    (where / "mesh.yaml").write_text(text)
    async with Mesh(manifests=[str(where / "mesh.yaml")]) as running:
        await until_due(running, peer, sink)
        yield running


async def until_due(running: Mesh, peer: Peer, sink: Sink) -> None:
    """Until events are due to every subscription, all of which are seen by the replies that come round."""
    async with asyncio.timeout(30):
        number = 0
        while True:
            number += 1
            for mode in MODES:
                await send_by_python(running, f"ask-{mode}", python_event(f"probe-{mode}-{number}"), "binary")
            await asyncio.sleep(0.1)
            wanted = {f"re-probe-{mode}-{at}" for mode in MODES for at in range(number + 1)}
            for got in ({said["received"]["id"] for said in peer.received}, sink.ids("/")):
                if len({name.rpartition("-")[0] for name in wanted & got}) < len(MODES):
                    break
            else:
                return


def python_event(identity: str, content_type: str = "application/json") -> CloudEvent:
    data = DATA[content_type]
    data = base64.b64decode(data["base64"]) if "base64" in data else data
    time = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return CloudEvent(COMMON | {"id": identity, "datacontenttype": content_type, "time": time}, data)


async def send_by_python(running: Mesh, channel: str, event: CloudEvent, mode: str) -> None:
    message = (to_binary_event if mode == "binary" else to_structured_event)(event)
    url = f"{running.ingress_url}/default/{channel}"
    async with aiohttp.ClientSession() as session, session.post(url, data=message.body, headers=message.headers) as answer:
        assert answer.status in {202, 404}  # the channel of the probe may not be served yet
        if not event.get_id().startswith("probe"):
            assert answer.status == 202, await answer.text()


async def python_got(sink: Sink, identity: str) -> tuple[str, dict[str, Any], Any]:
    """Mode, attributes and data of what the sink has received with this id, as Python's SDK reads it."""
    await sink.until(lambda: identity in sink.ids("/"), within=30, what=f"event {identity}")
    received = next(received for received in sink.requests if received.event_id == identity)
    read = from_http_event(HTTPMessage(dict(received.headers), received.body))
    mode = "structured" if (received.header("content-type") or "").startswith("application/cloudevents") else "binary"
    return mode, {name: value for name, value in read.get_attributes().items() if value is not None}, read.get_data()


async def test_each_sdk_understands_what_the_other_sends_and_answers(tmp_path: Path) -> None:
    async with node() as peer, Sink() as sink, mesh(peer, sink, tmp_path) as running:
        for mode in MODES:
            for content_type, data in DATA.items():
                attributes = {**COMMON, "time": "2026-01-31T12:00:00.000Z", "datacontenttype": content_type}
                for language in ("js", "py"):
                    identity = f"{language}-{mode}-{content_type}"
                    if language == "js":
                        await peer.send(
                            {**attributes, "id": identity, "data": data}, mode, f"{running.ingress_url}/default/orders"
                        )
                    else:
                        await send_by_python(running, "orders", python_event(identity, content_type), mode)
                    said = await peer.got(identity)
                    assert said["mode"] == mode
                    assert said["received"] == {**attributes, "id": identity, "data": data}
                    seen_mode, seen, seen_data = await python_got(sink, identity)
                    assert seen_mode == mode
                    assert seen.pop("time") == datetime(2026, 1, 31, 12, tzinfo=UTC)
                    assert seen == COMMON | {"id": identity, "datacontenttype": content_type}
                    assert seen_data == (base64.b64decode(data["base64"]) if "base64" in data else data)
            # Asked in this mode, answered in this mode; the answer is an event of its own.
            await peer.send({**COMMON, "id": f"ask-{mode}", "data": {}}, mode, f"{running.ingress_url}/default/ask-{mode}")
            said = await peer.got(f"re-ask-{mode}")
            reply = said["received"]
            assert (said["mode"], reply["type"], reply["source"]) == (mode, "reply", "/peer")
            assert reply["data"] == {"to": f"ask-{mode}"}
            seen_mode, seen, seen_data = await python_got(sink, f"re-ask-{mode}")
            assert (seen_mode, seen["type"], seen_data) == (mode, "reply", {"to": f"ask-{mode}"})
        assert not peer.faults
