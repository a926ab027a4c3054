"""What goes with what: owners and dependents, namespaces and their contents."""

import asyncio
from typing import Any

import pytest

from tests.unit.apiserver.client import SHAPES, Client, shape
from tests.unit.apiserver.conftest import Serving

NAMESPACES = "/api/v1/namespaces"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def owner(api: Client, name: str = "owner") -> dict[str, Any]:
    return await api.create(SHAPES, shape(name))  # type: ignore[no-any-return]


def owned(name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    references = [
        {
            "apiVersion": made["apiVersion"],
            "kind": made["kind"],
            "name": made["metadata"]["name"],
            "uid": made["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for made in owners
    ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": references}}


async def test_dependents_go_in_the_background(api: Client) -> None:
    made = await owner(api)
    await api.create(CONFIG_MAPS, owned("c", made))
    await api.ask("DELETE", f"{SHAPES}/owner")
    await api.gone(f"{CONFIG_MAPS}/c")


async def test_a_dependent_of_two_stays_for_the_other(api: Client) -> None:
    one, two = await owner(api, "one"), await owner(api, "two")
    await api.create(CONFIG_MAPS, owned("c", one, two))
    await api.ask("DELETE", f"{SHAPES}/one")
    async with asyncio.timeout(10):
        while len((await api.get(f"{CONFIG_MAPS}/c"))["metadata"]["ownerReferences"]) == 2:
            await asyncio.sleep(0.01)
    await api.ask("DELETE", f"{SHAPES}/two")
    await api.gone(f"{CONFIG_MAPS}/c")


async def test_orphans_stay_without_the_reference(api: Client) -> None:
    await api.create(CONFIG_MAPS, owned("c", await owner(api)))
    await api.ask("DELETE", f"{SHAPES}/owner", {"propagationPolicy": "Orphan"})
    await api.gone(f"{SHAPES}/owner")
    assert "ownerReferences" not in (await api.get(f"{CONFIG_MAPS}/c"))["metadata"]


async def test_in_the_foreground_the_owner_waits(api: Client) -> None:
    config = owned("c", await owner(api), block=True)
    config["metadata"]["finalizers"] = ["x.y/z"]
    await api.create(CONFIG_MAPS, config)
    code, body = await api.ask("DELETE", f"{SHAPES}/owner", {"propagationPolicy": "Foreground"})
    assert (code, body["metadata"]["finalizers"]) == (200, ["foregroundDeletion"])
    async with asyncio.timeout(10):
        while "deletionTimestamp" not in (await api.get(f"{CONFIG_MAPS}/c"))["metadata"]:
            await asyncio.sleep(0.01)
    assert (await api.ask("GET", f"{SHAPES}/owner"))[0] == 200
    await api.patch(f"{CONFIG_MAPS}/c", {"metadata": {"finalizers": None}})
    await api.gone(f"{SHAPES}/owner")


async def test_a_dependent_of_nobody_goes(api: Client) -> None:
    made = await owner(api)
    made["metadata"]["uid"] = "never-was"
    await api.create(CONFIG_MAPS, owned("c", made))
    await api.gone(f"{CONFIG_MAPS}/c")


async def test_what_was_left_at_a_stop_is_collected_at_the_next_start(serving: Serving, tmp_path: Any) -> None:
    async with serving(tmp_path / "db") as api:
        made = await owner(api)
        config = owned("c", made)
        config["metadata"]["finalizers"] = ["x.y/z"]
        await api.create(CONFIG_MAPS, config)
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        await api.ask("DELETE", f"{SHAPES}/owner")
        await api.ask("DELETE", f"{NAMESPACES}/ns")
    async with serving(tmp_path / "db") as api:
        await api.gone(f"{NAMESPACES}/ns")
        async with asyncio.timeout(10):
            while "deletionTimestamp" not in (await api.get(f"{CONFIG_MAPS}/c"))["metadata"]:
                await asyncio.sleep(0.01)


async def test_a_namespace_is_emptied_before_it_goes(api: Client) -> None:
    made = await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
    assert made["status"]["phase"] == "Active"
    shapes = SHAPES.replace("default", "ns")
    held = shape("held")
    held["metadata"]["finalizers"] = ["x.y/z"]
    await api.create(shapes, held)
    for index in range(100):
        await api.create(shapes, shape(f"s{index}"))
    code, body = await api.ask("DELETE", f"{NAMESPACES}/ns")
    assert (code, body["status"]["phase"]) == (200, "Terminating")
    await api.gone(f"{shapes}/s99")
    code, body = await api.ask("POST", shapes, shape("late"))
    assert (code, body["reason"]) == (403, "Forbidden")
    assert "because it is being terminated" in body["message"]
    await api.patch(f"{shapes}/held", {"metadata": {"finalizers": None}})
    await api.gone(f"{NAMESPACES}/ns")
    assert (await api.get(shapes))["items"] == []


async def test_namespaces_must_be_there_and_some_must_stay(api: Client) -> None:
    code, body = await api.ask("POST", SHAPES.replace("default", "nowhere"), shape("a"))
    assert (code, body["message"]) == (404, 'namespaces "nowhere" not found')
    listing = await api.get(NAMESPACES)
    assert [obj["metadata"]["name"] for obj in listing["items"]] == ["default", "knative-eventing"]
    for name in ("default", "knative-eventing"):
        code, body = await api.ask("DELETE", f"{NAMESPACES}/{name}")
        assert (code, body["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize("policy", ["Sideways", "background"])
async def test_other_policies_are_refused(api: Client, policy: str) -> None:
    await owner(api)
    assert (await api.ask("DELETE", f"{SHAPES}/owner", {"propagationPolicy": policy}))[0] == 422
