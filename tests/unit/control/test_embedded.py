"""The controllers over the real embedded API server, in this process, over TLS; users write as users do."""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventing.apiserver import ApiServer, ensure_certificates
from eventing.control import Controllers
from eventing.errors import ApiError, ObjectNotFoundError
from eventing.kube import Cache, Cluster, KubeClient
from eventing.reconcile import Key, Outcome, Reconciler
from eventing.resources.channelable import CONTROLLER_USER
from eventing.resources.conditions import condition_of
from eventing.resources.core import CONFIG_MAP, CORE_KINDS, EVENT, SERVICE
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, EVENTING_KINDS, SUBSCRIPTION
from eventing_memory import factory

MEMORY = factory.kind


class Embedded:
    """A running API server, the controllers, a data plane that applies all it sees, and a user."""

    def __init__(self, server: ApiServer, user: KubeClient, controller: KubeClient) -> None:
        self.server = server
        self.user = user
        self.controller = controller
        self.controllers = Controllers(
            controller, factories={"memory": factory}, ingress_url="http://localhost:8080", rand=random.Random(1)
        )

    async def plane(self) -> None:
        body: Object = {"metadata": {"namespace": DATA_PLANE_NAMESPACE, "name": "plane-0"}, "spec": {"instance": "1"}}
        await self.user.create(DATA_PLANE, {"apiVersion": DATA_PLANE.api_version, "kind": "DataPlane", **body})
        changed = asyncio.Event()
        cache = Cache(self.user, MEMORY)
        cache.on_change(lambda _change: changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(cache.run())
            while True:
                await changed.wait()
                changed.clear()
                applied = {
                    f"inmemorychannels.messaging.knative.dev/{m['namespace']}/{m['name']}": {
                        "uid": m["uid"],
                        "generation": m["generation"],
                    }
                    for m in (obj["metadata"] for obj in cache.list())
                }
                await self.user.patch(
                    DATA_PLANE, DATA_PLANE_NAMESPACE, "plane-0", {"status": {"applied": applied}}, subresource="status"
                )

    async def create(self, kind: Kind, name: str, **parts: Any) -> Object:
        metadata = {"namespace": "default", "name": name}
        return await self.user.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **parts})

    async def subscribe(self, name: str, **spec: Any) -> Object:
        reference = {"apiVersion": CHANNEL.api_version, "kind": "Channel", "name": "orders"}
        return await self.create(
            SUBSCRIPTION, name, spec={"channel": reference, "subscriber": {"uri": f"http://{name}.example.com"}} | spec
        )

    async def ready(self, kind: Kind, name: str, *wanted: str) -> Object:
        """The object once its Ready has this status (and reason)."""
        found: Object = {}
        try:
            async with asyncio.timeout(15):
                while True:
                    found = await self.user.get(kind, "default", name)
                    condition = condition_of(found) or {}
                    if [condition.get("status"), condition.get("reason")][: len(wanted)] == list(wanted):
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{name} is not {wanted}: {found}") from None


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Embedded]:
    kinds = (*CORE_KINDS, *EVENTING_KINDS, DATA_PLANE, MEMORY)
    users = {"admin-token": "kubernetes-admin", "controller-token": CONTROLLER_USER}
    server = ApiServer(database=tmp_path / "api.sqlite3", kinds=kinds, users=users)
    paths = ensure_certificates(tmp_path / "pki", ["localhost", "127.0.0.1"])
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    ca_data = await asyncio.to_thread(paths.ca_cert.read_text)
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
        tasks = [group.create_task(server.serve(sock, certfile=paths.server_cert, keyfile=paths.server_key, started=started.set))]
        await started.wait()
        clients = [KubeClient(Cluster(url, token, ca_data), user_agent="test") for token in users]
        for client in clients:
            stack.push_async_callback(client.aclose)
        fixture = Embedded(server, *clients)
        tasks += [group.create_task(fixture.controllers.run()), group.create_task(fixture.plane())]
        yield fixture
        for task in reversed(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_from_nothing_to_ready_and_back(embedded: Embedded) -> None:
    await embedded.create(CHANNEL, "orders", spec={"delivery": {"retry": 2}})
    await embedded.create(SERVICE, "shop", spec={"ports": [{"port": 80}]})
    reference = {"apiVersion": "v1", "kind": "Service", "name": "shop"}
    await embedded.subscribe("sub", subscriber={"ref": reference, "uri": "/in"})
    channel = await embedded.ready(CHANNEL, "orders", "True")
    assert channel["status"]["address"]["url"] == "http://localhost:8080/default/orders"
    subscription = await embedded.ready(SUBSCRIPTION, "sub", "True")
    assert subscription["status"]["physicalSubscription"] == {"subscriberUri": "http://shop.default.svc.cluster.local/in"}
    backing = await embedded.user.get(MEMORY, "default", "orders")
    assert [entry["delivery"] for entry in backing["spec"]["subscribers"]] == [{"retry": 2}]
    await embedded.user.delete(SERVICE, "default", "shop")
    await embedded.ready(SUBSCRIPTION, "sub", "False", "SubscriberResolveFailed")
    await embedded.user.delete(SUBSCRIPTION, "default", "sub")
    async with asyncio.timeout(10):
        while (await embedded.user.get(MEMORY, "default", "orders"))["spec"]["subscribers"]:
            await asyncio.sleep(0.02)
    await embedded.user.delete(CHANNEL, "default", "orders")
    async with asyncio.timeout(10):
        while (await embedded.user.list(MEMORY))[0]:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        while True:
            events, _ = await embedded.user.list(EVENT, "default")
            if {"SubscriberSync", "SubscriberResolveFailed", "SubscriberRemoved"} <= {event["reason"] for event in events}:
                break
            await asyncio.sleep(0.02)


async def test_what_users_may_not_do_is_said_in_knatives_words(embedded: Embedded) -> None:
    with pytest.raises(ApiError) as caught:
        await embedded.subscribe("sub", subscriber={})
    assert caught.value.code == 400
    assert caught.value.message == (
        'admission webhook "validation.webhook.eventing.knative.dev" denied the request: validation failed: '
        "missing field(s): spec.subscriber\nthe Subscription must reference a subscriber"
    )
    await embedded.create(CHANNEL, "orders")
    await embedded.ready(CHANNEL, "orders", "True")
    subscribers = [{"uid": "x", "subscriberUri": "http://x"}]
    with pytest.raises(ApiError, match="cannot be changed directly"):
        await embedded.user.patch(MEMORY, "default", "orders", {"spec": {"subscribers": subscribers}})


async def test_default_channel_follows_the_config_map(embedded: Embedded) -> None:
    config = {"default-ch-config": "clusterDefault: {apiVersion: example.com/v1, kind: OtherChannel}"}
    body: Object = {"metadata": {"namespace": "knative-eventing", "name": "default-ch-webhook"}, "data": config}
    await embedded.user.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", **body})
    channel = await embedded.create(CHANNEL, "orders")
    assert channel["spec"]["channelTemplate"] == {"apiVersion": "example.com/v1", "kind": "OtherChannel"}
    await embedded.ready(CHANNEL, "orders", "False", "ChannelFailure")


async def test_many_subscriptions_and_then_silence(embedded: Embedded) -> None:
    await embedded.create(CHANNEL, "orders")
    names = [f"sub-{number}" for number in range(60)]
    for name in names:
        await embedded.subscribe(name)
    for name in names:
        await embedded.ready(SUBSCRIPTION, name, "True")
    kinds = (*CORE_KINDS, *EVENTING_KINDS, DATA_PLANE, MEMORY)

    async def versions() -> set[str]:
        return {obj["metadata"]["resourceVersion"] for kind in kinds for obj in (await embedded.user.list(kind))[0]}

    async with asyncio.timeout(20):
        before = await versions()
        await asyncio.sleep(1)  # nothing tells that nothing will happen: this is the time in which it would
        while before != (after := await versions()):
            before = after
            await asyncio.sleep(1)
    assert embedded.controllers.idle


async def test_rounds_without_cause_write_nothing(embedded: Embedded) -> None:
    """Resync is there for what nobody noticed; where nothing is amiss it is read-only, also with a second copy at work."""
    await embedded.create(SERVICE, "shop", spec={"ports": [{"port": 80}]})
    await embedded.create(CHANNEL, "orders", spec={"delivery": {"deadLetterSink": {"uri": "http://dead.example.com"}}})
    reference = {"apiVersion": "v1", "kind": "Service", "name": "shop"}
    for name in ("a", "b", "c"):
        await embedded.subscribe(name, subscriber={"ref": reference})
    await embedded.subscribe("lost", subscriber={"ref": {**reference, "name": "nowhere"}})
    for name in ("a", "b", "c"):
        await embedded.ready(SUBSCRIPTION, name, "True")
    await embedded.ready(SUBSCRIPTION, "lost", "False", "SubscriberResolveFailed")
    again = Controllers(
        embedded.controller,
        factories={"memory": factory},
        ingress_url="http://localhost:8080",
        resync_s=0.2,
        rand=random.Random(2),
    )
    rounds: Counter[str] = Counter()
    for name, loop in again._loops.items():
        loop._reconciler = _Counting(loop._reconciler, name, rounds)

    async def version() -> str:
        return (await embedded.user.list(CHANNEL))[1]

    async with asyncio.TaskGroup() as group:
        running = group.create_task(again.run())
        await again.synced()
        async with asyncio.timeout(20):
            while not all(rounds[name] >= 4 for name in ("channels", "subscriptions", "inmemorychannels")):
                await asyncio.sleep(0.02)
            before = ""
            while before != (now := await version()):  # what the last of the changes above has set off may take a moment
                before, seen = now, rounds.total()
                while rounds.total() < seen + 30:
                    await asyncio.sleep(0.02)
        running.cancel()


class _Counting:
    def __init__(self, inner: Reconciler, name: str, rounds: Counter[str]) -> None:
        self.inner, self.name, self.rounds = inner, name, rounds

    async def reconcile(self, key: Key) -> Outcome:
        outcome = await self.inner.reconcile(key)
        self.rounds[self.name] += 1
        return outcome


DEFINITIONS = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    schema={},
    namespaced=False,
)
FUNCTION = Kind(group="example.com", version="v1", kind="Function", plural="functions", schema={})


async def test_kinds_that_users_define_come_and_go(embedded: Embedded) -> None:
    """Anything that has an address may be referred to, before its kind is there, while it is, and after."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = {
        "apiVersion": DEFINITIONS.api_version,
        "kind": DEFINITIONS.kind,
        "metadata": {"name": "functions.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "functions", "kind": "Function"},
            "versions": [version],
        },
    }
    await embedded.create(CHANNEL, "orders")
    reference = {"apiVersion": "example.com/v1", "kind": "Function", "name": "f"}
    await embedded.subscribe("sub", subscriber={"ref": reference, "uri": "in?x=1"})
    found = await embedded.ready(SUBSCRIPTION, "sub", "False", "SubscriberResolveFailed")
    assert 'no matches for kind "Function" in version "example.com/v1"' in (condition_of(found) or {})["message"]
    for address in ("http://first.example.com/base/", "http://second.example.com/base/"):
        # Twice: what a kind leaves behind must not stand in the way of its return.
        await embedded.user.create(DEFINITIONS, definition)
        async with asyncio.timeout(12):  # well before an unserved kind is asked for again for no reason
            while True:
                with contextlib.suppress(ApiError):
                    await embedded.create(FUNCTION, "f", status={"address": {"url": address}})
                    break
                await asyncio.sleep(0.02)
            found = await embedded.ready(SUBSCRIPTION, "sub", "True")
        assert found["status"]["physicalSubscription"]["subscriberUri"] == f"{address}in?x=1"
        moved = {"status": {"address": {"url": "http://moved.example.com"}}}
        await embedded.user.patch(FUNCTION, "default", "f", moved)
        async with asyncio.timeout(12):
            while found["status"]["physicalSubscription"]["subscriberUri"] != "http://moved.example.com/in?x=1":
                await asyncio.sleep(0.02)
                found = await embedded.user.get(SUBSCRIPTION, "default", "sub")
        await embedded.user.delete(DEFINITIONS, None, "functions.example.com")
        await embedded.ready(SUBSCRIPTION, "sub", "False", "SubscriberResolveFailed")
        async with asyncio.timeout(12):
            while await _exists(embedded, DEFINITIONS, "functions.example.com"):
                await asyncio.sleep(0.02)


async def _exists(embedded: Embedded, kind: Kind, name: str) -> bool:
    try:
        await embedded.user.get(kind, None, name)
    except ObjectNotFoundError:
        return False
    return True
