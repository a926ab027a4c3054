"""Kubernetes Events: one per thing said, counted up when it is said again."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from eventing.control.recorder import EventRecorder
from eventing.errors import ApiError
from eventing.resources.core import EVENT
from eventing.resources.kinds import Kind, Object

ABOUT: Object = {"apiVersion": "v1", "kind": "Thing", "metadata": {"namespace": "ns", "name": "a", "uid": "1"}}


class Fixture:
    def __init__(self, api: Any) -> None:
        self.api = api
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.recorder = EventRecorder(api, component="me", now=lambda: self.now, rand=random.Random(1))

    async def events(self, writes: int) -> list[Object]:
        async with asyncio.timeout(5):
            while self.api.writes.total() < writes:
                await asyncio.sleep(0.002)
        return [obj for (plural, *_), obj in self.api.objects.items() if plural == "events"]


@pytest.fixture
async def at(mesh: Any) -> AsyncIterator[Fixture]:
    fixture = Fixture(mesh.api)
    task = asyncio.ensure_future(fixture.recorder.run())
    yield fixture
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_same_again_counts_up(at: Fixture) -> None:
    for _ in range(3):
        at.recorder.record(ABOUT, "Warning", "Broken", "it is")
    at.recorder.record(ABOUT, "Warning", "Broken", "otherwise")
    first, second = await at.events(4)
    assert (first["count"], first["reason"], first["message"], first["type"]) == (3, "Broken", "it is", "Warning")
    assert first["involvedObject"] == {"apiVersion": "v1", "kind": "Thing", "namespace": "ns", "name": "a", "uid": "1"}
    assert first["metadata"]["name"].startswith("a.")
    assert first["source"] == {"component": "me"}
    assert second["count"] == 1


async def test_an_event_that_was_deleted_is_made_anew(at: Fixture) -> None:
    at.recorder.record(ABOUT, "Normal", "Fine", "it is")
    (event,) = await at.events(1)
    await at.api.delete(EVENT, "ns", event["metadata"]["name"])
    at.recorder.record(ABOUT, "Normal", "Fine", "it is")
    (again,) = await at.events(3)
    assert again["count"] == 1


async def test_a_refusal_does_not_stop_the_next_and_the_queue_is_bounded(at: Fixture) -> None:
    def refuse(_verb: str, _kind: Kind, obj: Object) -> None:
        if obj["reason"] == "Bad":
            raise ApiError(403, "Forbidden", "no")

    at.api.refuse = refuse
    at.recorder.record(ABOUT, "Normal", "Bad", "x")
    at.recorder.record(ABOUT, "Normal", "Good", "x")
    assert [event["reason"] for event in await at.events(1)] == ["Good"]
    for number in range(3000):
        at.recorder.record(ABOUT, "Normal", "Bad", str(number))
    assert at.recorder.dropped == 3000 - 2048
