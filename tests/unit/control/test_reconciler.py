"""The seam that every kind's reconciler sits in: found where it is defined, called in for what it owns and tracks."""

import asyncio
from typing import Any, ClassVar

import pytest

from eventing.control import Controllers
from eventing.control.channel import ChannelReconciler
from eventing.control.reconciler import KindReconciler, kind_reconcilers
from eventing.control.references import UnresolvedError
from eventing.control.subscription import SubscriptionReconciler
from eventing.reconcile import Done, Outcome
from eventing.resources.conditions import Conditions, ConditionSet
from eventing.resources.core import CONFIG_MAP, SERVICE
from eventing.resources.kinds import Kind, Object
from tests.unit.control.conftest import FakeApi

POOL = Kind(group="example.com", version="v1", kind="Pool", plural="pools", schema={})


class PoolReconciler(KindReconciler):
    """Makes as many ConfigMaps as its spec says, and follows the Service that it names."""

    kind = POOL
    conditions = ConditionSet("Filled", "Served")
    owns = (CONFIG_MAP,)
    rounds: ClassVar[list[str]] = []

    async def bring_about(self, pool: Object, status: Object, conditions: Conditions) -> Outcome:
        metadata = pool["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        self.rounds.append(name)
        self.track((namespace, name), [("v1", "Service", namespace, pool["spec"]["service"])])
        served = await self._served(namespace, pool["spec"]["service"])
        conditions.mark_true("Served") if served else conditions.mark_false("Served", "NoService")
        members = self.owned(CONFIG_MAP, pool)
        status["members"] = [member["metadata"]["name"] for member in members]
        if len(members) < pool["spec"]["size"]:
            conditions.mark_unknown("Filled", "Filling")
            owner = {"apiVersion": POOL.api_version, "kind": "Pool", "name": name, "uid": metadata["uid"], "controller": True}
            member = {"namespace": namespace, "name": f"{name}-{len(members)}", "ownerReferences": [owner]}
            await self._world.client.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": member})
        else:
            conditions.mark_true("Filled")
        return Done()

    async def _served(self, namespace: str, name: str) -> bool:
        try:
            await self._world.references.resolve({"ref": {"apiVersion": "v1", "kind": "Service", "name": name}}, namespace)
        except UnresolvedError:
            return False
        return True


def test_reconcilers_are_found_where_they_are_defined() -> None:
    assert {ChannelReconciler, SubscriptionReconciler} <= set(kind_reconcilers())
    assert KindReconciler not in kind_reconcilers()
    assert len({each.kind.plural for each in kind_reconcilers()}) == len(kind_reconcilers())


async def test_an_object_is_called_in_for_what_it_owns_and_what_it_tracks(mesh: Any) -> None:
    api: FakeApi = mesh.api
    api.kinds["pools"] = POOL
    controllers = Controllers(
        api, factories={}, ingress_url="http://localhost", reconcilers=[*kind_reconcilers(), PoolReconciler]
    )
    mesh.tasks.append(mesh.group.create_task(controllers.run()))
    await mesh.apply("pools", "p", spec={"size": 3, "service": "shop"})
    await mesh.until(lambda: mesh.ready("pools", "p") == ("False", "NoService"))
    await mesh.until(lambda: mesh.find("pools", "p")["status"]["members"] == ["p-0", "p-1", "p-2"])
    await mesh.apply("services", "shop", spec={"ports": [{"port": 80}]})
    await mesh.until_ready("pools", "p")
    assert mesh.find("pools", "p")["status"]["observedGeneration"] == 1
    await api.delete(CONFIG_MAP, "default", "p-2")
    await mesh.until(lambda: mesh.find("configmaps", "p-2") is not None)
    await mesh.until_ready("pools", "p")
    await api.delete(SERVICE, "default", "shop")
    await mesh.until(lambda: mesh.ready("pools", "p") == ("False", "NoService"))
    # What belongs to somebody else calls in nobody.
    async with asyncio.timeout(5):
        while not controllers.idle:
            await asyncio.sleep(0.01)
    PoolReconciler.rounds.clear()
    await mesh.apply("configmaps", "p-9", data={})
    await mesh.apply("pools", "q", spec={"size": 0, "service": "shop"})
    await mesh.until(lambda: mesh.ready("pools", "q")[0])
    assert "p" not in PoolReconciler.rounds


@pytest.fixture(autouse=True)
def _forget_rounds() -> None:
    PoolReconciler.rounds.clear()
