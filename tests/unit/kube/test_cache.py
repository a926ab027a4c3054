"""The cache against a scripted client: what it holds, what it tells, how it recovers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from eventing.errors import ApiError, ApiUnavailableError, ResourceExpiredError
from eventing.kube import Cache, Change
from eventing.kube.client import KubeClient
from eventing.resources.kinds import Kind, Object

THING = Kind(group="example.com", version="v1", kind="Thing", plural="things", schema={})


def thing(name: str, version: int, uid: str = "") -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": uid or name, "resourceVersion": str(version)}
    return {"metadata": metadata}


class Script(KubeClient):
    """Answers lists and watches from queues; a watch whose script is used up stays open."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[tuple[list[Object], str] | ApiError] = asyncio.Queue()
        self.events: asyncio.Queue[tuple[str, Object] | ApiError | None] = asyncio.Queue()
        self.watched_from: list[str] = []

    async def list(self, kind: Kind, namespace: str | None = None, label_selector: str = "", *, name: str = "") -> Any:
        answer = await self.lists.get()
        if isinstance(answer, ApiError):
            raise answer
        return answer

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, resource_version: str, timeout_s: float, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object]]:
        assert 300 <= timeout_s <= 600
        self.watched_from.append(resource_version)
        while (event := await self.events.get()) is not None:
            if isinstance(event, ApiError):
                raise event
            yield event


class Fixture:
    def __init__(self) -> None:
        self.client = Script()
        self.slept: list[float] = []
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.cache = Cache(self.client, THING, sleep=self._sleep, rand=random.Random(1))
        self.cache.on_change(self.changes.put_nowait)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def told(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(5):
            changes = [await self.changes.get() for _ in range(count)]
        assert self.changes.empty()
        return [(change.type, change.obj["metadata"]["name"]) for change in changes]


@pytest.fixture
async def at() -> AsyncIterator[Fixture]:
    fixture = Fixture()
    task = asyncio.ensure_future(fixture.cache.run())
    yield fixture
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_list_then_watch(at: Fixture) -> None:
    assert not at.cache.is_synced
    at.client.lists.put_nowait(([thing("a", 1)], "3"))
    await at.cache.synced()
    for event in (("ADDED", thing("b", 4)), ("MODIFIED", thing("a", 5)), ("DELETED", thing("b", 6))):
        at.client.events.put_nowait(event)
    assert await at.told(4) == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert at.cache.list() == [thing("a", 5)] == at.cache.list("ns")
    assert at.cache.list("other") == []
    assert at.cache.get("ns", "b") is None


async def test_resumes_where_it_was_bookmarks_included(at: Fixture) -> None:
    at.client.lists.put_nowait(([], "3"))
    at.client.events.put_nowait(("ADDED", thing("a", 4)))
    at.client.events.put_nowait(("BOOKMARK", {"metadata": {"resourceVersion": "17"}}))
    at.client.events.put_nowait(None)
    at.client.events.put_nowait(("ADDED", thing("b", 18)))
    assert await at.told(2) == [("ADDED", "a"), ("ADDED", "b")]
    assert at.client.watched_from == ["3", "17"]
    assert at.slept == []


async def test_expired_lists_again_and_tells_what_happened_meanwhile(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1), thing("b", 2), thing("c", 3)], "3"))
    assert len(await at.told(3)) == 3
    at.client.events.put_nowait(ResourceExpiredError(410, "Expired", "too old"))
    at.client.lists.put_nowait(([thing("a", 1), thing("c", 9, uid="another"), thing("d", 8)], "9"))
    assert await at.told(4) == [("DELETED", "b"), ("DELETED", "c"), ("ADDED", "c"), ("ADDED", "d")]


async def test_failures_back_off_with_jitter_and_keep_the_objects(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1)], "3"))
    await at.told(1)
    for _ in range(12):
        at.client.events.put_nowait(ApiUnavailableError(0, "Unreachable", "gone"))
    at.client.events.put_nowait(("MODIFIED", thing("a", 7)))
    assert await at.told(1) == [("MODIFIED", "a")]
    assert at.client.watched_from == ["3"] * 13
    assert len(at.slept) == 12
    assert all(0.2 <= delay <= 30 for delay in at.slept)
    assert at.slept[-1] > 10 > at.slept[0]


async def test_first_list_may_fail(at: Fixture) -> None:
    at.client.lists.put_nowait(ApiError(403, "Forbidden", "no"))
    at.client.lists.put_nowait(([thing("a", 1)], "1"))
    assert await at.told(1) == [("ADDED", "a")]


async def test_own_writes_are_remembered_and_not_told_twice(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1)], "1"))
    await at.told(1)
    at.cache.remember(thing("a", 5))
    assert await at.told(1) == [("MODIFIED", "a")]
    at.client.events.put_nowait(("MODIFIED", thing("a", 4)))
    at.client.events.put_nowait(("MODIFIED", thing("a", 5)))
    at.client.events.put_nowait(("MODIFIED", thing("a", 6)))
    assert await at.told(1) == [("MODIFIED", "a")]
    assert at.cache.get("ns", "a") == thing("a", 6)


async def test_an_answer_that_holds_somebody_elses_write_is_not_ones_own(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1)], "1"))
    await at.told(1)
    mine, theirs = thing("a", 5), thing("a", 7)
    mine["status"] = {"seen": True}
    theirs["metadata"]["generation"] = 2
    at.cache.remember(mine)
    at.cache.remember(theirs)
    assert [at.changes.get_nowait().own for _ in range(2)] == [True, False]


async def test_a_late_answer_brings_nothing_back(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1)], "1"))
    at.client.events.put_nowait(("DELETED", thing("a", 6)))
    await at.told(2)
    at.cache.remember(thing("a", 5))
    assert at.cache.list() == []
    assert at.changes.empty()


async def test_a_late_handler_gets_what_is_there(at: Fixture) -> None:
    at.client.lists.put_nowait(([thing("a", 1)], "1"))
    await at.told(1)
    seen: list[Change] = []
    at.cache.on_change(seen.append)
    assert [change.key for change in seen] == [("ns", "a")]


async def test_objects_are_found_by_their_controller(at: Fixture) -> None:
    def owned(name: str, version: int, *owners: tuple[str, bool]) -> Object:
        obj = thing(name, version)
        obj["metadata"]["ownerReferences"] = [{"uid": uid, "controller": controls} for uid, controls in owners]
        return obj

    at.client.lists.put_nowait(([owned("b", 1, ("x", False), ("o", True)), owned("a", 2, ("o", True)), thing("c", 3)], "3"))
    await at.told(3)
    assert [obj["metadata"]["name"] for obj in at.cache.owned_by("o")] == ["a", "b"]
    assert at.cache.owned_by("x") == []
    at.client.events.put_nowait(("MODIFIED", owned("a", 4, ("p", True))))
    at.client.events.put_nowait(("DELETED", owned("b", 5, ("o", True))))
    await at.told(2)
    assert (at.cache.owned_by("o"), [obj["metadata"]["name"] for obj in at.cache.owned_by("p")]) == ([], ["a"])
