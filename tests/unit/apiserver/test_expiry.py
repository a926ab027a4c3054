"""Kubernetes Events go after their time, and the oldest where there are too many; nothing else goes."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventing.apiserver import expiry as expiry_module
from eventing.apiserver.expiry import EventExpiry
from eventing.apiserver.store import Store

START = datetime(2026, 1, 31, tzinfo=UTC).timestamp()


async def tell(store: Store, name: str, at: float, resource: str = "events") -> None:
    stamp = datetime.fromtimestamp(at, UTC).isoformat()
    body = {"metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": stamp}, "lastTimestamp": stamp}
    await store.put(resource, ("n", name), lambda _version: json.dumps(body).encode())


async def until(store: Store, names: set[str]) -> None:
    async with asyncio.timeout(10):
        while {key[1] for key in store.collection("events").records} != names:
            await asyncio.sleep(0.01)


async def test_events_go_an_hour_after_they_were_last_written(tmp_path: Path) -> None:
    now = START
    store = Store(tmp_path / "db", stamp="test")
    await tell(store, "old", now - 4000)
    await tell(store, "again", now - 4000)
    await tell(store, "young", now - 100)
    await tell(store, "config", now - 9000, "configmaps")
    expiry = EventExpiry(store, clock=lambda: now)
    await tell(store, "again", now)
    await tell(store, "of long ago", now - 90_000)  # written now, whatever it says
    running = asyncio.create_task(expiry.run())
    await until(store, {"again", "young", "of long ago"})
    now += 3550
    await tell(store, "new", now)
    await until(store, {"again", "of long ago", "new"})
    assert len(store.collection("configmaps").records) == 1
    running.cancel()
    await asyncio.wait([running])
    await store.aclose()
    again = Store(tmp_path / "db", stamp="test")
    assert {key[1] for key in again.collection("events").records} == {"again", "of long ago", "new"}
    await again.aclose()


async def test_the_oldest_of_too_many_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry_module, "_MOST", 5)
    store = Store(tmp_path / "db", stamp="test")
    running = asyncio.create_task(EventExpiry(store, clock=lambda: START).run())
    for number in range(12):
        await tell(store, f"e{number}", START - 100 + number)
    await until(store, {f"e{number}" for number in range(7, 12)})
    running.cancel()
    await asyncio.wait([running])
    await store.aclose()
