"""How far a Subscription is behind, in its own status: put together from what the data-plane processes report."""

from typing import Any

from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE


def lag_of(mesh: Any, name: str = "sub") -> Any:
    return ((mesh.find("subscriptions", name) or {}).get("status") or {}).get("lag")


async def test_how_far_a_subscription_is_behind_in_all_processes_together(mesh: Any) -> None:
    mesh.start()
    mesh.plane("plane-1")
    await mesh.channel()
    await mesh.subscription()
    await mesh.until_ready("subscriptions", "sub")
    await mesh.until(lambda: lag_of(mesh) == {"events": 0})
    uid = mesh.find("subscriptions", "sub")["metadata"]["uid"]

    async def report(plane: str, events: int | None, oldest: str | None, *, gone: bool = False) -> None:
        lag = None if gone else {"subscription": "default/sub", "events": events, "oldest": oldest}
        body = {"status": {"lag": {uid: lag}}}
        await mesh.api.patch(DATA_PLANE, DATA_PLANE_NAMESPACE, plane, body, subresource="status")

    async def told(lag: dict[str, Any]) -> None:
        await mesh.until(lambda: lag_of(mesh) == lag)

    await report("plane-0", 5, "2026-01-01T10:00:00Z")
    await told({"events": 5, "oldest": "2026-01-01T10:00:00Z"})
    await report("plane-1", 7, "2026-01-01T09:00:00Z")
    await told({"events": 12, "oldest": "2026-01-01T09:00:00Z"})
    await report("plane-0", None, "2026-01-01T10:00:00Z")
    await told({"oldest": "2026-01-01T09:00:00Z"})
    await report("plane-0", 0, None, gone=True)
    await told({"events": 7, "oldest": "2026-01-01T09:00:00Z"})
    mesh.tasks[-1].cancel()  # the process ends
    await mesh.api.delete(DATA_PLANE, DATA_PLANE_NAMESPACE, "plane-1")
    await told({"events": 0})
    assert mesh.ready("subscriptions", "sub")[0] == "True"


async def test_many_that_are_behind_at_once_are_written_one_after_the_other(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    names = [f"sub-{number}" for number in range(20)]
    for name in names:
        await mesh.subscription(name)
    await mesh.until_ready("subscriptions", *names)
    await mesh.until_still()
    mesh.api.writes.clear()
    uids = {name: mesh.find("subscriptions", name)["metadata"]["uid"] for name in names}
    lag = {uid: {"subscription": f"default/{name}", "events": 1, "oldest": None} for name, uid in uids.items()}
    await mesh.api.patch(DATA_PLANE, DATA_PLANE_NAMESPACE, "plane-0", {"status": {"lag": lag}}, subresource="status")
    await mesh.until(lambda: all(lag_of(mesh, name) == {"events": 1} for name in names))
    assert mesh.api.writes["patch", "subscriptions"] == 20
