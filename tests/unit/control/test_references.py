"""Destinations resolved, and word of changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventing.control.references import References, Resolved, UnresolvedError, Watcher
from eventing.kube import Cache
from eventing.resources.core import SERVICE
from eventing.resources.kinds import Kind, Object

SINK = Kind(group="example.com", version="v1", kind="Sink", plural="sinks", schema={})
REF: Object = {"apiVersion": "example.com/v1", "kind": "Sink", "name": "s"}


class Fixture:
    def __init__(self, api: Any, group: asyncio.TaskGroup) -> None:
        self.api = api
        self.told: asyncio.Queue[Watcher] = asyncio.Queue()
        services = Cache(api, SERVICE)
        self.references = References(
            api, [services], changed=self.told.put_nowait, new_cache=lambda kind: Cache(api, kind), cluster_domain="c.local"
        )
        self.tasks = [group.create_task(services.run()), group.create_task(self.references.run())]

    async def sink(self, **status: Any) -> None:
        old = self.api.objects.get(("sinks", "ns", "s"), {"metadata": {"namespace": "ns", "name": "s"}})
        await self.api.write("apply", SINK, {**old, "status": status})

    async def refusal(self, destination: Object) -> str:
        with pytest.raises(UnresolvedError) as caught:
            await self.references.resolve(destination, "ns")
        return str(caught.value)


@pytest.fixture
async def at(mesh: Any) -> AsyncIterator[Fixture]:
    async with asyncio.TaskGroup() as group:
        fixture = Fixture(mesh.api, group)
        yield fixture
        for task in fixture.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_plain_uri(at: Fixture) -> None:
    found = await at.references.resolve({"uri": "http://x/y", "CACerts": "PEM", "audience": "a"}, "ns")
    assert found == Resolved("http://x/y", "PEM", "a")


async def test_an_unserved_kind_is_said_and_tried_again(at: Fixture) -> None:
    with pytest.raises(UnresolvedError, match='no matches for kind "Sink"') as caught:
        await at.references.resolve({"ref": REF}, "ns")
    assert caught.value.retry_after


async def test_any_addressable_by_discovery(at: Fixture) -> None:
    at.api.kinds["sinks"] = SINK
    assert await at.refusal({"ref": REF}) == 'failed to get object ns/s: sinks.example.com "s" not found'
    await at.sink()
    await until(lambda: at.references._caches["example.com/v1", "Sink"].get("ns", "s"))
    assert (await at.refusal({"ref": REF})).startswith("address not set for &ObjectReference{Kind:Sink,Namespace:ns,Name:s,")
    at.references.track(("subscriptions", ("ns", "sub")), [("example.com/v1", "Sink", "ns", "s")])
    await at.sink(address={"url": "http://one/base/", "CACerts": "PEM"})
    assert await asyncio.wait_for(at.told.get(), 5) == ("subscriptions", ("ns", "sub"))
    assert await at.references.resolve({"ref": REF}, "ns") == Resolved("http://one/base/", "PEM")
    relative = await at.references.resolve({"ref": REF, "uri": "in?x=1"}, "ns")
    assert relative.uri == "http://one/base/in?x=1"
    absolute = await at.references.resolve({"ref": REF, "uri": "/in"}, "ns")
    assert absolute.uri == "http://one/in"
    await at.sink(
        address={"url": "http://one"},
        addresses=[{"name": "https", "url": "https://two"}, {"name": "http", "url": "http://three"}],
    )
    assert await asyncio.wait_for(at.told.get(), 5)
    assert (await at.references.resolve({"ref": REF}, "ns")).uri == "https://two"
    assert (await at.references.resolve({"ref": {**REF, "address": "http"}}, "ns")).uri == "http://three"
    assert 'address with name "amqp" not found' in await at.refusal({"ref": {**REF, "address": "amqp"}})
    await at.sink(address={"url": "not-a-host"})
    await at.told.get()
    assert "hostname missing" in await at.refusal({"ref": REF})


async def test_other_changes_of_the_object_are_not_told(at: Fixture) -> None:
    at.api.kinds["sinks"] = SINK
    at.references.track(("x", ("ns", "sub")), [("example.com/v1", "Sink", "ns", "s")])
    await at.sink(address={"url": "http://one"})
    await at.references.resolve({"ref": REF}, "ns")
    assert await asyncio.wait_for(at.told.get(), 5)
    await at.sink(address={"url": "http://one"}, conditions=[])
    await until(lambda: "conditions" in (at.references._caches["example.com/v1", "Sink"].get("ns", "s") or {})["status"])
    assert at.told.empty()
    at.references.track(("x", ("ns", "sub")), [])
    await at.sink(address={"url": "http://two"})
    await until(
        lambda: (at.references._caches["example.com/v1", "Sink"].get("ns", "s") or {})["status"]["address"]["url"] == "http://two"
    )
    assert at.told.empty()


async def test_services(at: Fixture) -> None:
    reference = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    assert await at.refusal({"ref": reference}) == 'failed to get object ns/web: services "web" not found'
    at.references.track(("x", ("ns", "sub")), [("v1", "Service", "ns", "web")])
    await at.api.write("create", SERVICE, {"metadata": {"namespace": "ns", "name": "web"}, "spec": {"ports": [{"port": 80}]}})
    await asyncio.wait_for(at.told.get(), 5)
    assert (await at.references.resolve({"ref": reference, "uri": "/p"}, "ns")).uri == "http://web.ns.svc.c.local/p"
    secure = await at.references.resolve({"ref": reference, "CACerts": "PEM"}, "ns")
    assert secure == Resolved("https://web.ns.svc.c.local", "PEM")


async def until(check: Any) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.002)
