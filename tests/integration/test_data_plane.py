"""One data-plane process in the loop of a test, over an API that is a dictionary: start, serve, report, drain."""

import asyncio
import copy
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventing.channels import channel_factories
from eventing.dataplane import DataPlane, DataPlaneSettings
from eventing.dataplane.openapi import API
from eventing.errors import ApiUnavailableError, ObjectExistsError, ResourceExpiredError
from eventing.ingress.pace import BEHIND, WAIT_MAX_S
from eventing.kube import KubeClient
from eventing.kube.client import Outage
from eventing.resources.kinds import Kind, Object
from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import Client, subscriber


class TinyApi(KubeClient):
    """Channels to list and watch, and the reports that came in. `away` makes every call fail."""

    def __init__(self) -> None:
        self.channels: dict[str, Object] = {}
        self.reports: dict[str, Any] = {}
        self.lag: dict[str, Any] = {}
        self.patches = 0
        self.planes: set[str] = set()
        self.version = 0
        self.outage = None
        self.away = False
        self._watches: list[asyncio.Queue[tuple[str, Object] | None]] = []

    def put(self, name: str, *subscribers: Object) -> None:
        self.version += 1
        metadata: Object = {"name": name, "namespace": "default", "uid": name, "generation": self.version}
        metadata |= {"resourceVersion": str(self.version), "creationTimestamp": "2026-01-01T00:00:00Z"}
        known = name in self.channels
        self.channels[name] = {"metadata": metadata, "spec": {"subscribers": list(subscribers)}}
        self._tell("MODIFIED" if known else "ADDED", self.channels[name])

    def delete_channel(self, name: str) -> None:
        self._tell("DELETED", self.channels.pop(name))

    def _tell(self, type_: str, obj: Object) -> None:
        for watch in self._watches:
            watch.put_nowait((type_, copy.deepcopy(obj)))

    def cut(self) -> None:
        for watch in self._watches:
            watch.put_nowait(None)

    def _here(self) -> None:
        self.outage = Outage(0.0, "away") if self.away else None
        if self.away:
            raise ApiUnavailableError(503, "ServiceUnavailable", "away")

    async def list(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, name: str = ""
    ) -> tuple[list[Object], str]:
        self._here()
        return copy.deepcopy(list(self.channels.values())), str(self.version)

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str, timeout_s: float, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        self._here()
        queue: asyncio.Queue[tuple[str, Object] | None] = asyncio.Queue()
        self._watches.append(queue)
        try:
            while (item := await queue.get()) is not None:
                yield item
            raise ResourceExpiredError(410, "Expired", "too old")
        finally:
            self._watches.remove(queue)

    async def create(self, kind: Kind, obj: Object, *, field_manager: str = "") -> Object:
        self._here()
        if obj["metadata"]["name"] in self.planes:
            raise ObjectExistsError(409, "AlreadyExists", "exists")
        self.planes.add(obj["metadata"]["name"])
        return obj

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        self._here()
        self.planes.discard(name)
        self.reports.clear()

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Any, **_: Any) -> Object:
        self._here()
        self.patches += 1
        self.reports |= body["status"].get("applied", {})
        self.lag |= body["status"].get("lag", {})
        return {}

    def applied(self, name: str) -> int:
        report = self.reports.get(f"inmemorychannels.messaging.knative.dev/default/{name}")
        return report["generation"] if report else 0


class Plane:
    def __init__(self, ingress: Client, admin: Client, stop: asyncio.Event, running: "asyncio.Task[None]") -> None:
        self.ingress = ingress
        self.admin = admin
        self.stop = stop
        self.running = running

    async def get(self, target: str, head: str = "") -> tuple[int, bytes]:
        answer = await self.admin.request("GET", target, head)
        return answer.status, answer.body

    async def send(self, id_: str, channel: str = "orders") -> int:
        head = f"ce-specversion: 1.0\nce-id: {id_}\nce-source: /s\nce-type: t"
        return (await self.ingress.request("POST", f"/default/{channel}", head, b"{}")).status

    async def trace(self, id_: str) -> dict[str, Any]:
        status, body = await self.get(f"{API}/trace/{id_}", "authorization: Bearer secret")
        assert status == 200
        return {d["uid"]: d for match in json.loads(body)["matches"] for d in match["deliveries"]}


@asynccontextmanager
async def plane(api: TinyApi, **settings: Any) -> AsyncIterator[Plane]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in sockets]
    data_plane = DataPlane(
        name="one", client=api, factories={"memory": channel_factories()["memory"]}, ingress=sockets[0], admin=sockets[1], token="secret",
        settings=DataPlaneSettings(**({"drain_s": 1.0} | settings)),
    )  # fmt: skip
    stop, started = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(data_plane.run(started=started.set, stop=stop))
    clients = [Client(port) for port in ports]
    try:
        async with asyncio.timeout(10):
            if api.away:
                await asyncio.sleep(0.05)
            else:
                await started.wait()
        yield Plane(clients[0], clients[1], stop, running)
        stop.set()
        async with asyncio.timeout(20):
            await running
    finally:
        for client in clients:
            await client.aclose()
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        for sock in sockets:  # one that was told to stop before it served has not
            sock.close()


async def until(condition: Any, within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_serves_reports_and_answers_questions(sink: Sink) -> None:
    api = TinyApi()
    api.put("orders", subscriber("s", sink.url + "/"))
    async with plane(api) as one:
        await until(lambda: api.applied("orders") == 1)
        assert await one.send("1") == 202
        await sink.received(1)
        assert await one.get("/readyz") == (200, b"ok")
        assert await one.get("/healthz") == (200, b"ok")
        status, metrics = await one.get("/metrics")
        assert status == 200
        samples = [sample for family in text_string_to_metric_families(metrics.decode()) for sample in family.samples]
        labels = {"namespace": "default", "channel": "orders", "code": "202"}
        assert ("eventing_ingress_requests_total", labels, 1.0) in [sample[:3] for sample in samples]
        assert any(sample.name == "process_resident_memory_bytes" for sample in samples)
        assert (await one.trace("1"))["s"]["state"] == "delivered"
        for head in ("", "authorization: Bearer wrong", "authorization: Basic c2VjcmV0"):
            assert (await one.get(f"{API}/trace/1", head))[0] == 401
        assert (await one.get("/nope"))[0] == 404
        assert (await one.admin.request("POST", "/metrics")).status == 405
        api.put("more", subscriber("t", sink.url + "/t"))
        await until(lambda: api.applied("more") == 2)
        assert await one.send("2", "more") == 202
        api.delete_channel("more")
        await until(lambda: not api.applied("more"))
        assert await one.send("3", "more") == 404


async def test_it_goes_on_while_the_control_plane_is_away(sink: Sink) -> None:
    api = TinyApi()
    api.put("orders", subscriber("s", sink.url + "/"))
    async with plane(api) as one:
        await until(lambda: api.applied("orders") == 1)
        api.away = True
        api.cut()
        for number in range(20):
            assert await one.send(str(number)) == 202
        await sink.received(20)
        assert (await one.get("/readyz"))[0] == 200
        api.put("orders", subscriber("s", sink.url + "/new"))
        api.away = False
        await until(lambda: api.applied("orders") == 2)
        assert await one.send("x") == 202
        await sink.received(1, "/new")


async def test_started_before_the_control_plane_it_waits_and_is_not_ready(sink: Sink) -> None:
    api = TinyApi()
    api.away = True
    async with plane(api) as one:
        status, why = await one.get("/readyz")
        assert status == 503
        assert b"starting" in why
        api.put("orders", subscriber("s", sink.url + "/"))
        api.away = False
        await until(lambda: api.applied("orders") == 1)
        assert await one.send("1") == 202


async def test_an_earlier_incarnation_of_the_same_name_is_replaced() -> None:
    api = TinyApi()
    api.planes.add("one")
    api.reports["stale"] = {"generation": 9}
    async with plane(api):
        assert "stale" not in api.reports


@pytest.mark.parametrize("dead_letter", [True, False])
async def test_it_drains_within_its_deadline_and_returns(sink: Sink, dead_letter: bool) -> None:
    """F28."""
    api = TinyApi()
    sink.always("/stuck", Answer.never())
    sink.always("/slow", Answer().after(0.1))
    options: Any = {"dead_letter": sink.url + "/dead"} if dead_letter else {}
    api.put("orders", subscriber("stuck", sink.url + "/stuck", **options), subscriber("slow", sink.url + "/slow", **options))
    loop = asyncio.get_running_loop()
    async with plane(api, drain_s=2.0) as one:
        for number in range(30):
            assert await one.send(str(number)) == 202
        await sink.received(10, "/stuck")
        began = loop.time()
        one.stop.set()
        await until(one.running.done)
        assert loop.time() - began < 6.0, "drain_s, a grace for the dead letters, and a busy machine"
        one.running.result()
        assert len(sink.ids("/slow")) == 30
        assert len(sink.at("/dead")) == (20 if dead_letter else 0), "all but the ten that were being attempted"
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", one.ingress._port)
    await until(lambda: sink.open_connections == 0)


async def test_a_question_about_an_event_that_the_journal_cannot_read_stops_nothing(sink: Sink) -> None:
    from eventing.wire.server import ServerLimits

    api = TinyApi()
    api.put("orders")
    async with plane(api, server=ServerLimits(body_bytes=32 << 20)) as one:
        await until(lambda: api.applied("orders") == 1)
        body = json.dumps({"specversion": "1.0", "id": "huge", "source": "/s", "type": "t", "data": "x" * (17 << 20)}).encode()
        answer = await one.ingress.request("POST", "/default/orders", "content-type: application/cloudevents+json", body)
        assert answer.status == 202
        assert await one.trace("huge") == {}
        assert await one.send("1") == 202
        assert not one.running.done()


async def test_where_the_processor_is_short_and_nobody_follows_producers_wait(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision 0013, from the ingress to the channel's subscriptions."""
    monkeypatch.setattr("eventing.ingress.pace.processor_share", lambda: lambda: 1.0)
    sink.always("/stuck", Answer.never())
    api = TinyApi()
    api.put("orders", subscriber("s", sink.url + "/stuck"))
    api.put("others", subscriber("t", sink.url + "/"))
    async with plane(api) as one:
        await until(lambda: api.applied("orders") and api.applied("others"))
        event = {"specversion": "1.0", "source": "/s", "type": "t"}
        batch = json.dumps([event | {"id": str(number)} for number in range(BEHIND + 50)]).encode()
        head = "content-type: application/cloudevents-batch+json"
        assert (await one.ingress.request("POST", "/default/orders", head, batch)).status == 202
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(20):
            began = clock()
            while clock() - began < WAIT_MAX_S * 0.9:  # the processor is looked at ten times a second
                began = clock()
                assert await one.send("x") == 202
        assert await one.send("y", "others") == 202


async def test_who_is_behind_is_reported_and_who_keeps_up_is_not(sink: Sink) -> None:
    api = TinyApi()
    sink.always("/slow", Answer(503))
    options: dict[str, Any] = {"retry": 1000, "backoff_delay": "PT0.2S", "backoff_policy": "linear"}
    api.put("orders", subscriber("slow", f"{sink.url}/slow", **options), subscriber("quick", f"{sink.url}/quick"))
    async with plane(api, lag_every_s=0.02, behind_s=0.3) as one:
        await until(lambda: api.applied("orders") == 1)
        for number in range(3):
            assert await one.send(str(number)) == 202
        await until(lambda: (api.lag.get("slow") or {}).get("events") == 3)
        behind = api.lag["slow"]
        assert behind["subscription"] == "default/slow"
        assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(behind["oldest"])).total_seconds() < 20
        patches = api.patches
        await asyncio.sleep(0.3)
        assert api.patches == patches, "the same events wait"
        assert "quick" not in api.lag
        sink.always("/slow", Answer(200))
        await until(lambda: api.lag["slow"] is None)
