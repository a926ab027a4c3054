"""Knative's conformance of a Channel's control plane (rekt, channel/control_plane.go): CCP-03 to CCP-13, and the legacy suite's.

CCP-01 and CCP-02 are about ClusterRoles, which a cluster has and a mesh does not.
"""

import asyncio
from typing import Any

import pytest

from eventing.errors import ApiError
from eventing.kube import KubeClient
from eventing.resources.conditions import condition_of, is_ready
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION

__all__ = ["DEFINITIONS", "check_control_plane", "make", "ready"]

DEFINITIONS = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    schema={},
    namespaced=False,
)
SINK = {"uri": "http://dead.example.com/letters"}


async def ready(client: KubeClient, kind: Kind, name: str) -> Object:
    found: Object = {"metadata": {}}
    try:
        async with asyncio.timeout(20):
            while not is_ready(found):
                await asyncio.sleep(0.02)
                found = await client.get(kind, "default", name)
    except TimeoutError:
        raise AssertionError(f"{name} is not ready: {found}") from None
    return found


async def make(client: KubeClient, kind: Kind, name: str, spec: dict[str, Any]) -> Object:
    metadata = {"namespace": "default", "name": name}
    return await client.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec})


async def check_control_plane(client: KubeClient, kind: Kind) -> None:
    """The assertions, for a kind of channel that becomes Ready in the mesh that `client` speaks to."""
    definition = await client.get(DEFINITIONS, None, f"{kind.plural}.{kind.group}")
    assert definition["spec"]["scope"] == "Namespaced"  # CCP-03
    labels = definition["metadata"]["labels"]
    assert labels["messaging.knative.dev/subscribable"] == "true"  # CCP-04
    assert labels["duck.knative.dev/addressable"] == "true"  # CCP-05
    assert "channel" in definition["spec"]["names"]["categories"]  # CCP-06
    assert definition["spec"]["names"]["kind"].endswith("Channel")  # the legacy suite
    properties = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for half in ("spec", "status"):
        assert properties[half]["properties"]["subscribers"]["type"] == "array"  # CCP-08

    await make(client, kind, "conforming", {"delivery": {"deadLetterSink": SINK}})
    reference = {"apiVersion": kind.api_version, "kind": kind.kind, "name": "conforming"}
    spec = {"channel": reference, "subscriber": {"uri": "http://subscriber.example.com/"}}
    uid = (await make(client, SUBSCRIPTION, "s", spec))["metadata"]["uid"]
    await ready(client, SUBSCRIPTION, "s")
    channel = await ready(client, kind, "conforming")
    status = channel["status"]
    assert channel["metadata"]["annotations"]["messaging.knative.dev/subscribable"] == "v1"  # CCP-07
    assert status["subscribers"] == [{"uid": uid, "observedGeneration": 1, "ready": "True"}]  # CCP-08
    assert status["observedGeneration"] == channel["metadata"]["generation"]  # CCP-09, CCP-10
    for condition in status["conditions"]:  # CCP-10, CCP-11
        assert condition["status"] in {"True", "False", "Unknown"}
        assert condition["lastTransitionTime"]
    types = [condition["type"] for condition in status["conditions"]]
    assert "Ready" in types
    assert types == sorted(types)
    assert status["address"]["url"].endswith("/default/conforming")  # CCP-12
    assert status["deadLetterSinkUri"] == SINK["uri"]  # CCP-13

    # The legacy suite: nobody but the controller writes spec.subscribers.
    with pytest.raises(ApiError) as caught:
        await client.patch(kind, "default", "conforming", {"spec": {"subscribers": [{"uid": "x", "subscriberUri": "http://x"}]}})
    refused = (
        "must not set the field(s): spec.subscribable.subscribers" if kind is CHANNEL else "Channel.Spec.Subscribers changed"
    )
    assert refused in caught.value.message
    assert caught.value.code == 400

    # Reference 3.12: a Subscription is not True where the channel is gone, and what it leads to is emptied when it does not resolve.
    await client.delete(kind, "default", "conforming")
    async with asyncio.timeout(20):
        while (condition_of(found := await client.get(SUBSCRIPTION, "default", "s")) or {}).get("status") == "True":
            await asyncio.sleep(0.02)
    assert (condition_of(found) or {})["reason"] == "ChannelReferenceFailed"
