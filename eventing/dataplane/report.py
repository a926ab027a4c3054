"""Tells the control plane what this process has applied, and who is behind: the status of its DataPlane object.

No heartbeat. What is applied within a moment goes into one write; a write that fails is tried again, with what came meanwhile.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, Final

from eventing.errors import ApiError, ObjectExistsError
from eventing.kube import KubeClient
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Object

__all__ = ["Reporter"]

log = logging.getLogger(__name__)

GATHER_S: Final = 0.005  # a thousand channels applied together become a few writes; nobody notices 5 ms
GATHER_SHARE: Final = 3.0  # after a write that took t, what comes within 3t goes into one …
GATHER_MAX_S: Final = 0.5  # … or within this
RETRY_MAX_S: Final = 5.0


class Reporter:
    """Owns the DataPlane object of this process."""

    def __init__(self, client: KubeClient, *, name: str, instance: str) -> None:
        self._client = client
        self._name = name
        self._instance = instance
        self._applied: dict[str, Any] = {}
        self._lag: dict[str, Any] = {}
        self._unsent: dict[str, dict[str, Any]] = {"applied": {}, "lag": {}}  # None for what is gone
        self._news = asyncio.Event()

    async def register(self) -> None:
        """Make the object afresh: an earlier incarnation's claims end here."""
        body = {
            "apiVersion": DATA_PLANE.api_version,
            "kind": DATA_PLANE.kind,
            "metadata": {"name": self._name, "namespace": DATA_PLANE_NAMESPACE},
            "spec": {"instance": self._instance},
        }
        wait = 0.05
        while True:
            try:
                try:
                    await self._client.create(DATA_PLANE, body)
                except ObjectExistsError:
                    await self._client.delete(DATA_PLANE, DATA_PLANE_NAMESPACE, self._name)
                    await self._client.create(DATA_PLANE, body)
            except ApiError as error:
                if not error.retriable:
                    raise
                log.warning("the API server does not take this process's report yet", extra={"error": str(error)})
                await asyncio.sleep(wait * (1 + random.random()))  # noqa: S311 - jitter
                wait = min(wait * 2, RETRY_MAX_S)
            else:
                return

    def applied(self, key: str, what: tuple[str, int] | None) -> None:
        """A channel is in force as (uid, generation), or gone."""
        self._note("applied", self._applied, key, {"uid": what[0], "generation": what[1]} if what else None)

    def behind(self, changes: Mapping[str, Object | None]) -> None:
        """Subscriptions, by uid, are behind by so much, or (None) not any more (eventing.dataplane.lag)."""
        for uid, lag in changes.items():
            self._note("lag", self._lag, uid, lag)

    def _note(self, part: str, known: dict[str, Any], key: str, what: Object | None) -> None:
        if what is None:
            known.pop(key, None)
        else:
            known[key] = what
        self._unsent[part][key] = what
        self._news.set()

    async def run(self) -> None:
        """Write what is new, for ever."""
        wait = 0.05
        while True:
            await self._news.wait()
            await asyncio.sleep(GATHER_S)
            self._news.clear()
            unsent, self._unsent = self._unsent, {"applied": {}, "lag": {}}
            began = time.monotonic()
            try:
                await self._client.patch(
                    DATA_PLANE,
                    DATA_PLANE_NAMESPACE,
                    self._name,
                    {"status": {part: what for part, what in unsent.items() if what}},
                    subresource="status",
                )
            except ApiError as error:
                log.warning("what is applied could not be reported; trying again", extra={"error": str(error)})
                self._unsent = {part: {**what, **self._unsent[part]} for part, what in unsent.items()}
                self._news.set()
                if error.code == 404:  # somebody has deleted the object, and all that was in it
                    await self.register()
                    self._unsent = {"applied": dict(self._applied), "lag": dict(self._lag)}
                await asyncio.sleep(wait * (1 + random.random()))  # noqa: S311 - jitter
                wait = min(wait * 2, RETRY_MAX_S)
            else:
                wait = 0.05
                # The object grows with the channels, and so does the cost of each write: the next gathers the more.
                await asyncio.sleep(min(GATHER_MAX_S, GATHER_SHARE * (time.monotonic() - began)))
