"""Knative's conformance of a Channel's control plane, asked of a whole mesh through its API, for the generic Channel and for the
kinds of channel that need nothing but the mesh."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from eventing.channels import channel_factories
from eventing.kube import KubeClient, load_kubeconfig
from eventing.resources.catalogue import installed_kinds
from eventing.resources.conditions import condition_of
from eventing.resources.kinds import Kind
from eventing.resources.messaging import CHANNEL
from eventing.runtime.mesh import Mesh
from tests.support.channel_conformance import DEFINITIONS, check_control_plane

# Kinds whose back end is a server of its own are asked beside it.
CHANNELS = [CHANNEL, *(factory.kind for factory in channel_factories().values() if not factory.external)]


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with Mesh(drain_s=0.1) as mesh:
        found = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="test")
        async with contextlib.aclosing(found):
            yield found


@pytest.mark.parametrize("kind", CHANNELS, ids=lambda kind: kind.kind)
async def test_channel_control_plane(client: KubeClient, kind: Kind) -> None:
    await check_control_plane(client, kind)


async def test_what_is_served_is_what_is_committed_for_clusters(client: KubeClient) -> None:
    committed = [
        yaml.safe_load(path.read_text()) for path in sorted((Path(__file__).parents[2] / "deploy" / "crds").glob("*.yaml"))
    ]
    assert len(committed) == len([kind for kind in installed_kinds() if kind.group])
    for definition in committed:
        served = await client.get(DEFINITIONS, None, definition["metadata"]["name"])
        assert served["spec"] == {**definition["spec"], "conversion": {"strategy": "None"}}
        assert served["metadata"].get("labels") == definition["metadata"].get("labels")
        assert (condition_of(served, "Established") or {})["status"] == "True"
