"""The objects and what happened to them: one resource version per write, a log to resume watches from, group commit.

A write is *staged* on the event loop, where writers see it at once and so never collide inside the process; it is
*published* to readers and watchers, and acknowledged, only when it is on the disk. Objects are kept encoded: a list is a join
of bytes.
"""

import asyncio
import bisect
import sqlite3
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from eventing.apiserver.database import Database, Row
from eventing.apiserver.failures import expired, unavailable
from eventing.apiserver.metadata import Header, header_of

__all__ = ["Change", "Collection", "Frames", "Key", "Record", "Store"]

Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-wide objects is empty."""

# What each collection keeps of its changes: so many and so many bytes, but never fewer than the least.
_LOG_EVENTS: Final = 2048
_LOG_BYTES: Final = 2 * 1024 * 1024
_LOG_LEAST: Final = 8
_FRAMES_BYTES: Final = 256 * 1024
_LARGE: Final = 16 * 1024


class Record:
    """One version of one object. Never altered."""

    __slots__ = ("_header", "data", "key", "version")

    def __init__(self, key: Key, version: int, data: bytes) -> None:
        self.key = key
        self.version = version
        self.data = data
        self._header: Header | None = None

    @property
    def header(self) -> Header:
        """Read from the data; kept for large objects only: small ones are read in microseconds, and there are many."""
        if self._header is not None:
            return self._header
        header = header_of(self.data)
        if len(self.data) > _LARGE:
            self._header = header
        return header


class Change:
    """One write: `record` is the object after it (its last state, where `removed`), `previous` the one before."""

    __slots__ = ("previous", "record", "removed", "resource")

    def __init__(self, resource: str, record: Record, previous: Record | None, *, removed: bool) -> None:
        self.resource = resource
        self.record = record
        self.previous = previous
        self.removed = removed


class Frames:
    """The latest watch events as they were sent: watchers that keep up share them, whatever their number."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> bytes | None:
        return self._kept.get(key)

    def put(self, key: Hashable, frame: bytes) -> None:
        self._kept[key] = frame
        self._size += len(frame)
        while self._size > _FRAMES_BYTES and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])


class Collection:
    """All objects of one resource as readers see them, and the log of its latest changes."""

    def __init__(self, floor: int) -> None:
        self.records: dict[Key, Record] = {}
        self.log: deque[Change] = deque()
        self.floor = floor  # watches from before this version cannot be resumed
        self.first = 0  # number of the first change in the log
        self._log_bytes = 0
        self._keys: list[Key] = []
        self.watchers: set[asyncio.Event] = set()  # set on every change
        self.frames = Frames()

    def load(self, record: Record) -> None:
        """Take a record that was stored before; they come sorted."""
        self._keys.append(record.key)
        self.records[record.key] = record

    def sorted(self) -> list[Record]:
        """All records by namespace and name."""
        return [self.records[key] for key in self._keys]

    def at(self, version: int) -> list[Record]:
        """All records as they were at `version`. Raises 410 where the log does not reach back so far."""
        if version < self.floor:
            raise expired(f"too old resource version: {version} ({self.floor})")
        then: dict[Key, Record | None] = {}
        for change in reversed(self.log):
            if change.record.version <= version:
                break
            then[change.record.key] = change.previous
        if not then:
            return self.sorted()
        records = {**self.records, **then}
        return [record for key in sorted(records) if (record := records[key]) is not None]

    def replace(self, record: Record) -> None:
        if record.key not in self.records:
            bisect.insort(self._keys, record.key)
        self.records[record.key] = record

    def remove(self, key: Key) -> None:
        if self.records.pop(key, None) is not None:
            del self._keys[bisect.bisect_left(self._keys, key)]

    def append(self, change: Change) -> None:
        self.log.append(change)
        self._log_bytes += len(change.record.data)
        while len(self.log) > _LOG_EVENTS or (self._log_bytes > _LOG_BYTES and len(self.log) > _LOG_LEAST):
            old = self.log.popleft()
            self.first += 1
            self.floor = old.record.version
            self._log_bytes -= len(old.record.data)

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    def cursor(self, version: int) -> int:
        """The number of the first change after `version`. Raises 410 where the log does not reach back so far."""
        if version < self.floor:
            raise expired(f"too old resource version: {version} ({self.floor})")
        number = self.first + len(self.log)
        for change in reversed(self.log):
            if change.record.version <= version:
                break
            number -= 1
        return number

    def since(self, number: int, limit: int) -> list[Change]:
        """Up to `limit` changes from `number` on. Raises 410 where they have left the log."""
        start = number - self.first
        if start < 0:
            raise expired(f"too old resource version: the watch fell more than {len(self.log)} changes behind")
        return [self.log[index] for index in range(start, min(len(self.log), start + limit))]


class _Staged:
    __slots__ = ("change", "done", "row")

    def __init__(self, change: Change, row: Row, done: "asyncio.Future[None]") -> None:
        self.change = change
        self.row = row
        self.done = done


class Store:
    """All collections over one database file. Made in the thread of the event loop that uses it."""

    def __init__(self, path: Path, *, stamp: str) -> None:
        self._database = Database(path, stamp=stamp)
        self.version, rows = self._database.load()  # of what is published
        self._next = self.version
        self._collections: dict[str, Collection] = {}
        self._floor = self.version
        for row in rows:
            if row.data is not None:
                self.collection(row.resource).load(Record((sys.intern(row.namespace), row.name), row.version, row.data))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._staged: list[_Staged] = []
        self._overlay: dict[tuple[str, Key], tuple[Record | None, _Staged]] = {}
        self._flushing = False
        self._closed = False
        self.fault = ""  # why the last write could not be stored
        self.observers: list[Callable[[Change], None]] = []  # called in order, after publication

    def collection(self, resource: str) -> Collection:
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = Collection(self._floor)
        return found

    def collections(self) -> Iterator[tuple[str, Collection]]:
        return iter(list(self._collections.items()))

    def latest(self, resource: str, key: Key) -> Record | None:
        """The object as a writer must see it: with all writes that are under way."""
        staged = self._overlay.get((resource, key))
        if staged is not None:
            return staged[0]
        return self.collection(resource).records.get(key)

    def pending(self, resource: str, key: Key) -> "asyncio.Future[None] | None":
        """Done when the latest write of the object, if one is under way, is stored."""
        staged = self._overlay.get((resource, key))
        return None if staged is None else staged[1].done

    async def put(self, resource: str, key: Key, encode: Callable[[int], bytes]) -> Record:
        """Write an object; `encode` gets its new resource version. Returns when it is stored and published."""
        staged = self._stage(resource, key, encode, removed=False)
        await asyncio.shield(staged.done)
        return staged.change.record

    async def remove(self, resource: str, key: Key, encode: Callable[[int], bytes]) -> Record:
        """Remove an object; `encode` makes its last state, which watchers get. Returns when it is gone for good."""
        staged = self._stage(resource, key, encode, removed=True)
        await asyncio.shield(staged.done)
        return staged.change.record

    def _stage(self, resource: str, key: Key, encode: Callable[[int], bytes], *, removed: bool) -> _Staged:
        if self._closed:
            raise unavailable("the server is shutting down")
        previous = self.latest(resource, key)
        self._next += 1
        key = (sys.intern(key[0]), key[1])
        data = bytes(memoryview(encode(self._next)))  # of exactly its size: encoders leave room that nothing else fits into
        record = Record(key, self._next, data)
        change = Change(resource, record, previous, removed=removed)
        row = Row(resource, *key, self._next, None if removed else data)
        loop = asyncio.get_running_loop()
        staged = _Staged(change, row, loop.create_future())
        self._staged.append(staged)
        self._overlay[resource, key] = (None if removed else record, staged)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)  # what is staged in this turn of the loop goes into one commit
        return staged

    def _flush(self) -> None:
        batch, self._staged = self._staged, []
        if not batch:
            self._flushing = False
            return
        rows = [staged.row for staged in batch]
        written = asyncio.get_running_loop().run_in_executor(self._thread, self._database.write, rows, rows[-1].version)
        written.add_done_callback(lambda future: self._written(batch, future))

    def _written(self, batch: list[_Staged], written: "asyncio.Future[None]") -> None:
        error = written.exception()
        self.fault = str(error) if error else ""
        if error is None:
            self._publish(batch)
        else:
            # What was staged meanwhile builds on what is lost: it fails, too.
            lost, self._staged = batch + self._staged, []
            self._overlay.clear()
            reason = unavailable(f"the write could not be stored: {error}")
            for staged in lost:
                if not staged.done.done():
                    staged.done.set_exception(reason)
            if not isinstance(error, sqlite3.Error):
                asyncio.get_running_loop().call_exception_handler({"message": "the store failed", "exception": error})
        self._flush()

    def _publish(self, batch: list[_Staged]) -> None:
        touched: set[Collection] = set()
        for staged in batch:
            change = staged.change
            collection = self.collection(change.resource)
            key = change.record.key
            if change.removed:
                collection.remove(key)
            else:
                collection.replace(change.record)
            collection.append(change)
            touched.add(collection)
            self.version = change.record.version
            if self._overlay.get((change.resource, key), (None, None))[1] is staged:
                del self._overlay[change.resource, key]
        for collection in touched:
            collection.wake()
        for staged in batch:
            for observe in self.observers:
                observe(staged.change)
            if not staged.done.done():
                staged.done.set_result(None)

    async def aclose(self) -> None:
        """Refuse new writes, finish those under way, close the file."""
        self._closed = True
        pending = [entry.done for _, entry in self._overlay.values()]
        if pending:
            await asyncio.wait(pending)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        self._database.close()
