"""Kubernetes Events do not stay: an hour after they were last written they go, as in Kubernetes, and the oldest go earlier where
there are very many. After a restart what an Event says of its time stands for when it was written.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from eventing.apiserver.store import Change, Key, Record, Store
from eventing.apiserver.writing import encoder
from eventing.errors import ApiError

__all__ = ["EventExpiry"]

log = logging.getLogger(__name__)

_RESOURCE: Final = "events"
_TTL_S: Final = 3600.0
_MOST: Final = 2000
_AT_ONCE: Final = 256
_PAUSE_S: Final = 1.0


class _Told(msgspec.Struct):
    """When an Event was last told; which of the fields is filled depends on who wrote it."""

    metadata: dict[str, object]
    lastTimestamp: str | None = None
    eventTime: str | None = None


class EventExpiry:
    """Removes them in the background while `run` runs. `clock` is the calendar's time in seconds."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._due: OrderedDict[Key, float] = OrderedDict()  # the earliest told first, nearly
        self._wake = asyncio.Event()
        for record in sorted(store.collection(_RESOURCE).records.values(), key=lambda record: record.version):
            self._due[record.key] = _told_at(record, clock()) + _TTL_S
        store.observers.append(self._observe)

    async def run(self) -> None:
        """Remove until cancelled."""
        while True:
            self._wake.clear()
            over = self._over()
            if over:
                try:
                    await asyncio.gather(*map(self._remove, over))
                except ApiError as error:
                    log.warning("Events that are over cannot be removed, it is tried again", extra={"error": str(error)})
                    await asyncio.sleep(_PAUSE_S)
                continue
            due_at = next(iter(self._due.values()), None)
            try:
                async with asyncio.timeout(None if due_at is None else max(_PAUSE_S, due_at - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _over(self) -> list[Key]:
        """Those whose time is over, and the oldest of too many."""
        now, surplus = self._clock(), len(self._due) - _MOST
        over: list[Key] = []
        for number, (key, due_at) in enumerate(self._due.items()):
            if (due_at > now and number >= surplus) or len(over) == _AT_ONCE:
                break
            over.append(key)
        return over

    async def _remove(self, key: Key) -> None:
        record = self._store.latest(_RESOURCE, key)
        if record is None:
            self._due.pop(key, None)
        else:
            await self._store.remove(_RESOURCE, key, encoder(msgspec.json.decode(record.data)))

    def _observe(self, change: Change) -> None:
        if change.resource != _RESOURCE:
            return
        key = change.record.key
        self._due.pop(key, None)
        if not change.removed:
            self._due[key] = self._clock() + _TTL_S
        self._wake.set()


def _told_at(record: Record, now: float) -> float:
    event = msgspec.json.decode(record.data, type=_Told)
    stamp = event.lastTimestamp or event.eventTime or event.metadata.get("creationTimestamp")
    try:
        return min(now, datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return now
