"""An independent client library of the Kubernetes API finds its way on the embedded server: kr8s, which knows nothing of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kr8s
import kr8s.asyncio
import kr8s.asyncio.objects
import pytest

from tests.support.api_server import serving
from tests.support.manifests import channel_object, config_map_object

CHANNELS = "channels.messaging.knative.dev"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Any]:
    with serving(tmp_path) as kubeconfig:
        client: Any = await kr8s.asyncio.api(kubeconfig=str(kubeconfig))
        yield client
        await client._session.aclose()  # it has no method for it


async def test_it_lists_watches_patches_and_deletes(api: Any) -> None:
    kind: Any = kr8s.asyncio.objects.new_class("Channel", "messaging.knative.dev/v1", namespaced=True, plural="channels")
    channel = await kind(channel_object("orders", {"namespace": "default"}), api=api)
    await channel.create()
    seen: list[tuple[str, str]] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async for event, obj in api.watch(CHANNELS, namespace="default"):
            seen.append((event, obj.name))
            begun.set()
            if event == "DELETED":
                return

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await begun.wait()
        await channel.patch({"metadata": {"labels": {"a": "b"}}})
        await channel.label({"c": "d"})
        found: Any = [obj async for obj in api.get(CHANNELS, namespace="default", label_selector="a=b")]
        assert [(obj.name, obj.labels) for obj in found] == [("orders", {"a": "b", "c": "d"})]
        operation = [{"op": "add", "path": "/metadata/annotations", "value": {"e": "f"}}]
        await channel.patch(operation, type="json")
        await channel.patch({"status": {"address": {"url": "http://x"}}}, subresource="status")
        await channel.wait("jsonpath='{.status.address.url}'=http://x", timeout=10)
        await channel.delete()
        await channel.wait("delete", timeout=10)
    assert not await channel.exists()
    assert [event for event, _ in seen] == ["ADDED", *["MODIFIED"] * 4, "DELETED"]


async def test_it_is_told_what_is_wrong_and_what_there_is(api: Any) -> None:
    assert (await api.version())["major"] == "1"
    assert "messaging.knative.dev/v1" in [version async for version in api.api_versions()]
    assert {"channels", "subscriptions"} <= {resource["name"] for resource in await api.api_resources()}
    config: Any = await kr8s.asyncio.objects.ConfigMap(config_map_object("config", {"namespace": "default"}, a="1"), api=api)
    await config.create()
    with pytest.raises(kr8s.ServerError, match=r'configmaps "config" already exists'):
        await config.create()
    again: Any = await kr8s.asyncio.objects.ConfigMap.get("config", namespace="default", api=api)
    assert again.raw["data"] == {"a": "1"}
    with pytest.raises(kr8s.NotFoundError):
        await kr8s.asyncio.objects.ConfigMap.get("nothing", namespace="default", api=api)
    namespace: Any = await kr8s.asyncio.objects.Namespace({"metadata": {"name": "doomed"}}, api=api)
    await namespace.create()
    await (await kr8s.asyncio.objects.ConfigMap(config_map_object("c", {"namespace": "doomed"}), api=api)).create()
    await namespace.delete()
    async with asyncio.timeout(20):
        await namespace.wait("delete")
    assert [obj async for obj in api.get("configmaps", namespace="doomed")] == []
