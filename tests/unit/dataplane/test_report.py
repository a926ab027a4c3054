"""What a process reports to the control plane: once, together, and again where it was lost."""

import asyncio
from typing import Any

from eventing.dataplane.report import Reporter
from eventing.errors import ApiUnavailableError, ObjectExistsError, ObjectNotFoundError
from eventing.kube import KubeClient
from eventing.resources.kinds import Kind, Object


class OneObject(KubeClient):
    """An API server with room for one DataPlane."""

    def __init__(self) -> None:
        self.status: dict[str, dict[str, Any]] | None = None
        self.writes: list[Object] = []
        self.away = False

    async def create(self, kind: Kind, obj: Object, *, field_manager: str = "") -> Object:
        if self.status is not None:
            raise ObjectExistsError(409, "AlreadyExists", "exists")
        self.status = {}
        return obj

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        self.status = None

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Any, **_: Any) -> Object:
        if self.away:
            raise ApiUnavailableError(503, "ServiceUnavailable", "away")
        if self.status is None:
            raise ObjectNotFoundError(404, "NotFound", "gone")
        self.writes.append(body["status"])
        for part, changes in body["status"].items():
            for key, what in changes.items():
                self.status.setdefault(part, {})[key] = what
                if what is None:
                    del self.status[part][key]
        return {}

    async def says(self, status: dict[str, dict[str, Any]]) -> None:
        async with asyncio.timeout(10):
            while {part: what for part, what in (self.status or {}).items() if what} != status:
                await asyncio.sleep(0.005)


async def test_what_is_applied_and_who_is_behind() -> None:
    api = OneObject()
    reporter = Reporter(api, name="embedded", instance="1")
    await reporter.register()
    running = asyncio.create_task(reporter.run())
    reporter.applied("orders", ("u", 1))
    await api.says({"applied": {"orders": {"uid": "u", "generation": 1}}})
    behind = {"subscription": "default/a", "events": 5, "oldest": "2027-01-15T08:00:00Z"}
    reporter.behind({"a": behind, "b": behind})
    await api.says({"applied": {"orders": {"uid": "u", "generation": 1}}, "lag": {"a": behind, "b": behind}})
    assert len(api.writes) == 2
    reporter.behind({})
    reporter.behind({"b": None})
    api.away = True
    await asyncio.sleep(0.05)
    reporter.behind({"a": {**behind, "events": 6}})
    api.away = False
    await api.says({"applied": {"orders": {"uid": "u", "generation": 1}}, "lag": {"a": {**behind, "events": 6}}})
    running.cancel()


async def test_all_of_it_is_told_again_where_somebody_has_deleted_the_object() -> None:
    api = OneObject()
    reporter = Reporter(api, name="embedded", instance="1")
    await reporter.register()
    running = asyncio.create_task(reporter.run())
    behind = {"subscription": "default/a", "events": 5, "oldest": "2027-01-15T08:00:00Z"}
    reporter.applied("orders", ("u", 1))
    reporter.behind({"a": behind})
    await api.says({"applied": {"orders": {"uid": "u", "generation": 1}}, "lag": {"a": behind}})
    api.status = None
    reporter.applied("more", ("v", 2))
    whole = {"orders": {"uid": "u", "generation": 1}, "more": {"uid": "v", "generation": 2}}
    await api.says({"applied": whole, "lag": {"a": behind}})
    running.cancel()
