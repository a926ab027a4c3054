"""Kubernetes Events (not CloudEvents): what the controllers tell users about an object, beside its conditions."""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from eventing.errors import ApiError, ObjectNotFoundError
from eventing.kube import KubeClient
from eventing.resources.conditions import timestamp
from eventing.resources.core import EVENT
from eventing.resources.kinds import Object

__all__ = ["EventRecorder"]

_log = logging.getLogger(__name__)

_QUEUE: Final = 2048
_REMEMBERED: Final = 4096
_LONGEST_MESSAGE: Final = 1024
_IDENTITY: Final = ("name", "namespace", "uid", "resourceVersion")

_Key = tuple[str, str, str, str]


class EventRecorder:
    """Writes Events in the background, one after the other. The same thing said again counts up the Event there is.

    Events are advice: when more than the queue holds are waiting, the newest is dropped and counted in `dropped`.
    """

    def __init__(self, client: KubeClient, *, component: str, now: Callable[[], datetime], rand: random.Random) -> None:
        self._client = client
        self._component = component
        self._now = now
        self._random = rand
        self._queue: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(_QUEUE)
        self._known: OrderedDict[_Key, tuple[str, int]] = OrderedDict()
        self.dropped = 0

    def record(self, about: Object, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Say it. `about` needs apiVersion, kind and metadata. Never waits."""
        # Thousands may wait here: what they are about is kept, not the whole of it.
        metadata = {name: about["metadata"][name] for name in _IDENTITY if name in about["metadata"]}
        about = {"apiVersion": about["apiVersion"], "kind": about["kind"], "metadata": metadata}
        try:
            self._queue.put_nowait((about, type_, reason, message[:_LONGEST_MESSAGE]))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            about, type_, reason, message = await self._queue.get()
            try:
                await self._write(about, type_, reason, message)
            except ApiError as error:
                # An Event that cannot be written is not worth holding up the next; its condition tells the same.
                metadata = about["metadata"]
                which = f"{about['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
                _log.warning("Event was not written", extra={"reason": reason, "object": which, "error": error.message})

    async def _write(self, about: Object, type_: str, reason: str, message: str) -> None:
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        key = (metadata.get("uid", ""), type_, reason, message)
        now = timestamp(self._now())
        if (known := self._known.get(key)) is not None:
            name, count = known[0], known[1] + 1
            try:
                await self._client.patch(EVENT, namespace, name, {"count": count, "lastTimestamp": now})
            except ObjectNotFoundError:
                del self._known[key]
            else:
                self._known[key] = (name, count)
                self._known.move_to_end(key)
                return
        name = f"{metadata['name']}.{self._random.getrandbits(64):016x}"
        reference = {"apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": namespace}
        reference |= {field: metadata[field] for field in ("name", "uid", "resourceVersion") if field in metadata}
        await self._client.create(
            EVENT,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": reference,
                "type": type_,
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": self._component},
                "reportingComponent": self._component,
            },
        )
        self._known[key] = (name, 1)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
