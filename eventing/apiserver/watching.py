"""WATCH: what there is, then every change, as lines of JSON.

A watcher is a cursor in the collection's log; nothing is kept for it. One that falls behind the log is ended with 410 (it
lists again). Each change is encoded once for all watchers with the same view.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from eventing.apiserver.failures import expired, invalid_options, too_many
from eventing.apiserver.reading import Reader, Selection, selection_of
from eventing.apiserver.registry import Resource
from eventing.apiserver.requests import Request, View
from eventing.apiserver.store import Change, Collection, Record, Store
from eventing.errors import ApiError

__all__ = ["Watcher", "Watches"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[bytes], Awaitable[None]]

_BATCH: Final = 256
_BATCH_BYTES: Final = 64 * 1024
_BOOKMARK_S: Final = 60.0
_MAX_TIMEOUT_S: Final = 3600
_MAX_WATCHES: Final = 1000


class Watches:
    """All open watches."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self.store = store
        self.reader = reader
        self._open: set[Watcher] = set()
        self.stopping = False

    def open(self, resource: Resource, namespace: str, request: Request, view: View) -> "Watcher":
        """A watch from where the request says. Raises 400, 410 and 429."""
        if len(self._open) >= _MAX_WATCHES:
            raise too_many(f"there are {_MAX_WATCHES} watches already: close some")
        watcher = Watcher(self, resource, selection_of(resource, namespace, request), request, view)
        self._open.add(watcher)
        return watcher

    def closed(self, watcher: "Watcher") -> None:
        self._open.discard(watcher)

    def stop(self, resource: Resource | None = None) -> None:
        """End all watches, or those of a resource that is not served any more."""
        self.stopping = self.stopping or resource is None
        for watcher in list(self._open):
            if resource is None or watcher.resource is resource:
                watcher.stop()

    def __len__(self) -> int:
        return len(self._open)

    def by_resource(self) -> Counter[str]:
        """How many are open of each resource."""
        return Counter(watcher.resource.key for watcher in self._open)


class Watcher:
    """One watch."""

    def __init__(self, watches: Watches, resource: Resource, selection: Selection, request: Request, view: View) -> None:
        self.resource = resource
        self._watches = watches
        self._selection = selection
        self._view = view
        self._collection: Collection = watches.store.collection(resource.key)
        self._wake = asyncio.Event()
        self._stopped = watches.stopping
        self._bookmarks = request.flag("allowWatchBookmarks")
        timeout_s = request.number("timeoutSeconds")
        self._timeout_s = min(timeout_s, _MAX_TIMEOUT_S) if timeout_s > 0 else _MAX_TIMEOUT_S
        version = request.number("resourceVersion")
        initial, match = request.params.get("sendInitialEvents", ""), request.params.get("resourceVersionMatch", "")
        if match and not initial:
            text = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise invalid_options("ListOptions", "resourceVersionMatch", text)
        if initial and match != "NotOlderThan":
            text = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid_options("ListOptions", "sendInitialEvents", text)
        self._announce_end = request.flag("sendInitialEvents")
        if self._announce_end and not self._bookmarks:
            text = "Forbidden: sendInitialEvents requires allowWatchBookmarks to be set"
            raise invalid_options("ListOptions", "allowWatchBookmarks", text)
        if version > watches.store.version:
            raise expired(f"Too large resource version: {version}, current: {watches.store.version}")
        self._initial: list[Record] = []
        if self._announce_end or (version == 0 and initial.lower() != "false"):
            self._initial = [record for record in self._collection.sorted() if selection.matches(record)]
            version = watches.store.version
        self._cursor = self._collection.cursor(version or watches.store.version)
        self._at = version or watches.store.version

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    async def run(self, receive: Receive, send: Send) -> None:
        """Send events until the client goes, the time is over, the log has moved on, or the server stops."""
        self._collection.watchers.add(self._wake)
        try:
            async with asyncio.TaskGroup() as group:
                gone = group.create_task(self._until_gone(receive))
                try:
                    await self._send_initial(send)
                    await self._follow(send)
                except ApiError as error:
                    await send(_frame("ERROR", msgspec.json.encode(error.status)))
                gone.cancel()
        finally:
            self._collection.watchers.discard(self._wake)
            self._watches.closed(self)

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop()

    async def _send_initial(self, send: Send) -> None:
        records, self._initial = self._initial, []
        frames: list[bytes] = []
        size = 0
        for number, record in enumerate(records, 1):
            frames.append(self._object("ADDED", record.data))
            size += len(frames[-1])
            if size > _BATCH_BYTES or number == len(records):
                await send(b"".join(frames))
                frames, size = [], 0
                if self._stopped:
                    return
        if self._announce_end:
            await send(self._bookmark(end_of_initial=True))

    async def _follow(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        bookmark_at = loop.time() + _BOOKMARK_S
        while not self._stopped and loop.time() < deadline:
            self._wake.clear()
            changes = self._collection.since(self._cursor, _BATCH)
            if changes:
                await self._send_changes(changes, send)
                continue
            self._at = self._watches.store.version
            if self._bookmarks and loop.time() >= bookmark_at:
                bookmark_at = loop.time() + _BOOKMARK_S
                await send(self._bookmark())
                continue
            try:
                async with asyncio.timeout_at(min(deadline, bookmark_at)):
                    await self._wake.wait()
            except TimeoutError:
                bookmark_at = bookmark_at if self._bookmarks else deadline
        if self._bookmarks and not self._stopped:
            await send(self._bookmark())  # where to go on from, however quiet the watch was

    async def _send_changes(self, changes: list[Change], send: Send) -> None:
        frames: list[bytes] = []
        size = 0
        for change in changes:
            self._cursor += 1
            self._at = change.record.version
            frame = self._change(change)
            if frame:
                frames.append(frame)
                size += len(frame)
                if size > _BATCH_BYTES:
                    break
        if frames:
            await send(b"".join(frames))

    def _change(self, change: Change) -> bytes:
        now = not change.removed and self._selection.matches(change.record)
        before = change.previous is not None and self._selection.matches(change.previous)
        if not now and not before:
            return b""
        if not now and not change.removed:
            return self._left(change)
        event = "MODIFIED" if now and before else "ADDED" if now else "DELETED"
        key = (change.record.version, event, self._view)
        frame = self._collection.frames.get(key)
        if frame is None:
            frame = self._object(event, change.record.data)
            self._collection.frames.put(key, frame)
        return frame

    def _left(self, change: Change) -> bytes:
        """The object does not fit the selector any more: it is gone for this watcher, as it last saw it."""
        assert change.previous is not None
        obj = msgspec.json.decode(change.previous.data)
        obj["metadata"]["resourceVersion"] = str(change.record.version)
        return self._object("DELETED", msgspec.json.encode(obj))

    def _object(self, event: str, data: bytes) -> bytes:
        return _frame(event, self._watches.reader.show(self.resource, data, self._view))

    def _bookmark(self, *, end_of_initial: bool = False) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(self._at)}
        if end_of_initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = self.resource.kind
        obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        return _frame("BOOKMARK", msgspec.json.encode(obj))


def _frame(event: str, obj: bytes) -> bytes:
    return b'{"type":"' + event.encode() + b'","object":' + obj + b"}\n"
