"""Terminal failures on disk: what was dead-lettered or dropped is still known after a restart.

The loop only puts what has failed into a bounded queue. A task takes it from there in small slices, makes records of them, and
has a thread write them; so the disk, however slow, stalls no delivery. What does not fit, or cannot be written, is counted.

Durability: a record is in the file within about 20 ms, from where it survives the end of the process, and is synchronised to the
disk within a second (and at the end), from where it survives the end of the machine.

What a durable channel drops is owed: the channel keeps the event until the record is on the disk, synchronised, and a disk that
does not work for a while makes it wait. At the end of the process what is still owed stays with the channel, and comes again.
"""

import asyncio
import base64
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from eventing.bindings.http import binary_head
from eventing.errors import StartError
from eventing.event import Event
from eventing.journal.documents import Delivery, Match
from eventing.journal.journal import Journal
from eventing.journal.segments import HEADER_BYTES, Payload, Segment, header, new_salt, pack_record
from eventing.journal.story import PAUSE_S, failure_document

__all__ = ["SEGMENT_BYTES", "TOTAL_BYTES", "FailureLog"]

log = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 4 << 20
TOTAL_BYTES: Final = 64 << 20  # of all segments; beyond it the oldest go
QUEUE_EVENTS: Final = 20_000  # an in-memory channel can hold 10,000 that end together when the process stops
QUEUE_BYTES: Final = 16 << 20
DATA_MAX: Final = 64 << 10  # an event with more data is recorded without it
# Of a record's JSON; a thousand attempts with all that was answered to each are more, then the older ones are left out.
DOCUMENT_MAX: Final = 1 << 20
SLICE: Final = 10  # records handed to the thread at once
# A record takes up to 0.1 ms to make. In the turn in which an event is dropped at one subscriber it would delay that event's
# delivery to the others, so it is made later, and one at a time; for each BACKLOG that wait, one more.
MAKE_PAUSE_S: Final = 0.001
BACKLOG: Final = 200
SYNC_S: Final = 1.0
RETRY_S: Final = 5.0  # after an error of the disk
OWED_RETRY_S: Final = 0.1  # how often is looked whether that time has come, or the end
SCAN: Final = 200  # records looked at in one turn of the loop
_PATTERN: Final = "failures-*.seg"
_datasync: Final[Callable[[int], None]] = getattr(os, "fdatasync", os.fsync)  # macOS has none


class FailureLog:
    """The segments of one data-plane process in `directory`, and those that others have there or earlier ones left.

    `open` before use; `start` begins to write; `aclose` writes what is queued and ends it."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        total_bytes: int = TOTAL_BYTES,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._segment_bytes = segment_bytes
        self._total_bytes = total_bytes
        self._retry_s = retry_s
        self._clock = clock
        self._write = write
        self._queue: deque[tuple[Event, int, int]] = deque()
        self._queued_bytes = 0
        # Bounded by what is in flight; the channel holds these events whether they are here or not.
        self._owed: deque[tuple[Event, int, int, Callable[[], None]]] = deque()
        self._news = asyncio.Event()
        self._fd = -1
        self._path = directory
        self._size = 0
        self._salt = 0
        self._count = 0
        self._dirty = False
        self._synced = 0.0
        self._broken_until = 0.0
        self._broken = False
        self._lost_while_broken = 0
        self._writing: asyncio.Task[None] | None = None
        self._stop_at: float | None = None

    def open(self) -> None:
        """Make the directory and look at what is there. Raises StartError where it cannot be used, or holds a segment of a newer
        version."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._segments():
                with suppress(FileNotFoundError), path.open("rb") as file:  # another process may just have removed it
                    Segment(file.read(HEADER_BYTES), str(path))
        except OSError as error:
            raise StartError(f"the journal's directory {self._directory} cannot be used: {error.strerror}") from error
        self._journal.on_failure = self.failed

    def failed(self, event: Event, subscriber: int, record: int, then: Callable[[], None] | None = None) -> None:
        """Put on the queue; never waits, never raises. With `then` it is never lost: `then` is called when it is on the disk."""
        if then is not None:
            self._owed.append((event, subscriber, record, then))
            self._news.set()
            return
        size = len(event.data)
        if len(self._queue) >= QUEUE_EVENTS or self._queued_bytes + size > QUEUE_BYTES:
            self._journal.failures_lost += 1
            return
        self._queue.append((event, subscriber, record))
        self._queued_bytes += size
        self._news.set()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Write what fails from now on, in a task of `tasks`."""
        self._writing = tasks.create_task(self._run())

    async def _run(self) -> None:
        stopping = False
        while not stopping:
            await self._wait()
            stopping = self._stop_at is not None
            self._news.clear()
            while (self._queue or self._owed) and not self._late():
                if self._owed and self._clock() >= self._broken_until:
                    await self._write_owed()
                elif self._queue:
                    await self._write_slice()
                else:
                    await asyncio.sleep(min(OWED_RETRY_S, max(0.0, self._broken_until - self._clock())))
        self._journal.on_failure = None
        self._journal.failures_lost += len(self._queue)
        self._queue.clear()
        try:
            await asyncio.to_thread(self._end_segment)
        except OSError as error:
            self._broke(error)

    def _late(self) -> bool:
        return self._stop_at is not None and self._clock() >= self._stop_at

    async def _wait(self) -> None:
        """For something to write; what was written is synchronised meanwhile."""
        if self._dirty:
            try:
                async with asyncio.timeout(SYNC_S):
                    await self._news.wait()
            except TimeoutError:
                try:
                    await asyncio.to_thread(self._sync)
                except OSError as error:
                    self._broke(error)
        await self._news.wait()

    async def aclose(self, deadline_s: float = 3.0) -> None:
        """Write what is queued, for up to `deadline_s` seconds, synchronise and close."""
        self._stop_at = self._clock() + deadline_s
        self._news.set()
        if self._writing is not None:
            await self._writing

    # writing

    async def _write_owed(self) -> None:
        taken = [self._owed.popleft() for _ in range(min(SLICE, len(self._owed)))]
        payloads: list[bytes] = []
        for event, subscriber, record, _ in taken:
            if self._stop_at is None and len(payloads) % (1 + len(self._owed) // BACKLOG) == 0:
                await asyncio.sleep(MAKE_PAUSE_S)
            payloads.append(self._payload(event, subscriber, record).encode())
        try:
            await asyncio.to_thread(self._append, payloads, sync=True)
        except OSError as error:
            self._owed.extendleft(reversed(taken))
            self._broke(error)
            return
        self._works(len(taken))
        for *_, then in taken:
            then()

    async def _write_slice(self) -> None:
        taken = [self._queue.popleft() for _ in range(min(SLICE, len(self._queue)))]
        self._queued_bytes -= sum(len(event.data) for event, _, _ in taken)
        if self._clock() < self._broken_until:
            self._lost(len(taken))
            return
        payloads: list[bytes] = []
        for event, subscriber, record in taken:
            if self._stop_at is None and len(payloads) % (1 + len(self._queue) // BACKLOG) == 0:
                await asyncio.sleep(MAKE_PAUSE_S)
            payloads.append(self._payload(event, subscriber, record).encode())
        try:
            await asyncio.to_thread(self._append, payloads)
        except OSError as error:
            self._lost(len(taken))
            self._broke(error)
        else:
            self._works(len(taken))

    def _works(self, written: int) -> None:
        self._journal.failures_written += written
        if self._broken:
            self._broken = False
            log.warning("failed events are recorded on disk again", extra={"lost": self._lost_while_broken})
            self._lost_while_broken = 0

    def _broke(self, error: OSError) -> None:
        """Said once, until it works again."""
        self._broken_until = self._clock() + self._retry_s
        if not self._broken:
            self._broken = True
            log.error(
                "failed events cannot be recorded on disk; delivery goes on",
                extra={"directory": str(self._directory), "error": error.strerror or str(error)},
            )

    def _lost(self, count: int) -> None:
        self._journal.failures_lost += count
        self._lost_while_broken += count

    def _payload(self, event: Event, subscriber: int, record: int) -> Payload:
        document = failure_document(self._journal, event, subscriber, record)
        raw = msgspec.json.encode(document)
        while len(raw) > DOCUMENT_MAX and len(document.deliveries[0].attempts) > 1:
            document = _without_the_older(document)
            raw = msgspec.json.encode(document)
        if not document.data.kept or len(event.data) > DATA_MAX:
            return Payload(raw)
        head = event.wire if event.structured is None and event.wire is not None else binary_head(event)
        return Payload(raw, head, event.data)

    def _append(self, payloads: list[bytes], *, sync: bool = False) -> None:
        """In the thread: append, rotate where the segment is full, synchronise at most once a second, or now."""
        try:
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                self._end_segment()  # another process, which had more to write, has removed it
            for payload in payloads:
                if self._fd < 0 or self._size + len(payload) > self._segment_bytes:
                    self._end_segment()
                    self._begin_segment()
                self._put(pack_record(payload, self._salt))
            if sync or self._clock() - self._synced >= SYNC_S:
                self._sync()
        except OSError:
            # What is half written is passed over by the reader; the next try begins a segment of its own.
            fd, self._fd = self._fd, -1
            self._dirty = False
            if fd >= 0:
                os.close(fd)
                if self._size <= HEADER_BYTES:  # there is nothing in it: a disk that is full for a day leaves no thousand files
                    self._path.unlink(missing_ok=True)
            raise

    def _put(self, data: bytes) -> None:
        self._dirty = True
        self._size += len(data)
        while data:
            data = data[self._write(self._fd, data) :]

    def _begin_segment(self) -> None:
        self._count += 1
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"failures-{int(time.time() * 1000):014d}-{self._journal.prefix}-{self._count:06d}.seg"
        self._path = self._directory / name
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._salt = new_salt()
        self._size = 0
        self._put(header(self._salt))
        self._prune()

    def _prune(self) -> None:
        """Keep the segments of all processes within their bound, the one just begun taken for full. Those go first that nobody
        has written to for the longest."""
        held = self._segment_bytes
        others = []
        for path in self._segments():
            with suppress(FileNotFoundError):  # another process has just removed it
                if path != self._path:
                    status = path.stat()
                    others.append((status.st_mtime_ns, path, status.st_size))
        for _, path, size in sorted(others, reverse=True):
            held += size
            if held > self._total_bytes:
                path.unlink(missing_ok=True)

    def _end_segment(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if self._dirty:
                    _datasync(fd)
                    self._dirty = False
            finally:
                os.close(fd)

    def _sync(self) -> None:
        dirty, self._dirty = self._dirty, False
        if self._fd >= 0 and dirty:
            _datasync(self._fd)
        self._synced = self._clock()

    # reading

    def _segments(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._directory.glob(_PATTERN))

    async def find(self, query: str, *, with_data: bool = False) -> list[Match]:
        """The failures of an event id or a receipt, those of one acceptance together, oldest first."""
        needle = msgspec.json.encode(query)
        found: dict[str, Match] = {}
        for path in await asyncio.to_thread(self._segments):
            raw = await asyncio.to_thread(_read_if_holds, path, needle)
            if raw is None:
                continue
            segment = Segment(raw, str(path))
            for number, payload in enumerate(segment.payloads()):
                if needle in payload:
                    for match in _matching(payload, query, with_data=with_data):
                        found[match.receipt] = _joined(found.get(match.receipt), match)
                if number % SCAN == SCAN - 1:
                    await asyncio.sleep(PAUSE_S)
            if segment.damaged:
                log.warning("part of a journal segment is damaged", extra={"segment": str(path), "bytes": segment.damaged})
        return list(found.values())


def _read_if_holds(path: Path, needle: bytes) -> bytes | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:  # pruned meanwhile
        return None
    return raw if needle in raw else None


def _matching(raw: bytes, query: str, *, with_data: bool) -> Iterator[Match]:
    payload = Payload.decode(raw)
    if payload is None:
        return
    match = msgspec.json.decode(payload.document, type=Match)
    if query not in {match.id, match.receipt}:
        return
    if with_data and payload.head:
        data = msgspec.structs.replace(match.data, base64=base64.b64encode(payload.data).decode())
        match = msgspec.structs.replace(match, data=data)
    yield match


def _without_the_older(match: Match) -> Match:
    """The newer half of the attempts; their numbers say that there were others."""
    (delivery,) = match.deliveries
    attempts = delivery.attempts[len(delivery.attempts) // 2 :]
    return msgspec.structs.replace(match, deliveries=[msgspec.structs.replace(delivery, attempts=attempts)])


def _joined(before: Match | None, match: Match) -> Match:
    if before is None:
        return match
    known: dict[str, Delivery] = {each.uid: each for each in (*before.deliveries, *match.deliveries)}
    return msgspec.structs.replace(before, deliveries=list(known.values()))
