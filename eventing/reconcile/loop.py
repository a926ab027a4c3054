"""The loop that works the queue off. The clock is the event loop's own; tests run it on one whose time is virtual."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from eventing.errors import EventingError, ObjectConflictError
from eventing.observe.control_metrics import ReconcileMetrics
from eventing.reconcile.queue import DEFAULT_BACKOFF, Backoff, Key, WorkQueue

__all__ = ["Again", "Done", "Outcome", "ReconcileLoop", "Reconciler", "TerminalError"]

_log = logging.getLogger(__name__)

_RESYNC_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Done:
    """All is as wanted, or will be when something changes that calls the key in."""


@dataclass(frozen=True, slots=True)
class Again:
    """Look again after so many seconds."""

    after_s: float


Outcome = Done | Again


class TerminalError(EventingError):
    """Trying again cannot help until the object changes; the reconciler has said so in a condition."""


class Reconciler(Protocol):
    """Brings one kind of object to where it should be."""

    @property
    def name(self) -> str:
        """For logs."""

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the whole of the object's world and move it one step nearer. Called for one key at a time."""


class ReconcileLoop:
    """Calls a reconciler for each key that is due: never twice at the same time for one key, `workers` keys at a time.

    An error is tried again after a back-off that grows with the key's failures in a row. Every key that `keys` lists is
    due once in `resync_s`, spread over that time: a change that nobody noticed is put right then.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        keys: Callable[[], Iterable[Key]],
        workers: int = 4,
        resync_s: float = _RESYNC_S,
        backoff: Backoff = DEFAULT_BACKOFF,
        rand: random.Random | None = None,
    ) -> None:
        self._reconciler = reconciler
        self._keys = keys
        self._workers = workers
        self._resync_s = resync_s
        self._backoff = backoff
        self._random = rand or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._queue = WorkQueue()
        self.metrics = ReconcileMetrics()
        self._failures: dict[Key, int] = {}
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def idle(self) -> bool:
        """Nothing is due now and nothing is in work (keys may wait for their time)."""
        return self._queue.idle

    @property
    def due(self) -> int:
        """Keys that are to be worked on now."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        """Keys that wait for their time."""
        return self._queue.waiting

    def enqueue(self, key: Key) -> None:
        """The key is due now; it is worked on once however often it is called in before."""
        self._queue.add(key)
        self._wake()

    def enqueue_after(self, key: Key, delay_s: float) -> None:
        """The key is due in `delay_s`, or earlier if it already was to be."""
        self._queue.add_at(key, asyncio.get_running_loop().time() + delay_s)
        self._wake()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self._reconciler.name}-{number}")
            group.create_task(self._resync(), name=f"{self._reconciler.name}-resync")

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = await self._take()
            began = loop.time()
            result = "defect"
            try:
                outcome = await self._reconciler.reconcile(key)
            except TerminalError as error:
                result = "terminal"
                self._failures.pop(key, None)
                _log.warning("object is at fault", extra=self._fields(key, error))
            except ObjectConflictError:
                # Somebody else wrote first: their change is on its way here and this is no failure to speak of.
                result = "conflict"
                self._retry(key, None)
            except EventingError as error:
                result = "error"
                delay_s = self._retry(key, error.retry_after)
                _log.warning("reconciling failed", extra=self._fields(key, error, delay_s))
            except Exception:  # noqa: BLE001 - a defect met at one object must not stop the others; told whole, tried again
                delay_s = self._retry(key, None)
                _log.exception("defect in a reconciler", extra=self._fields(key, None, delay_s))
            else:
                self._failures.pop(key, None)
                result = "again" if isinstance(outcome, Again) else "done"
                if isinstance(outcome, Again):
                    self._queue.add_at(key, loop.time() + outcome.after_s)
            finally:
                self.metrics.reconciled(result, loop.time() - began)
                self._queue.done(key)
                self._wake()

    def _fields(self, key: Key, error: Exception | None, again_in_s: float | None = None) -> dict[str, object]:
        fields: dict[str, object] = {"controller": self._reconciler.name, "object": "/".join(filter(None, key))}
        if error is not None:
            fields["error"] = str(error)
        return fields | ({} if again_in_s is None else {"again_in_s": round(again_in_s, 2)})

    def _retry(self, key: Key, at_least_s: float | None) -> float:
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = max(self._backoff.delay(self._failures[key], self._random), at_least_s or 0.0)
        self._queue.add_at(key, asyncio.get_running_loop().time() + delay_s)
        return delay_s

    async def _take(self) -> Key:
        loop = asyncio.get_running_loop()
        while True:
            key = self._queue.take(loop.time())
            if key is not None:
                if len(self._queue):
                    self._wake()
                return key
            due = self._queue.next_due
            waiter: asyncio.Future[None] = loop.create_future()
            timer = loop.call_at(due, _finish, waiter) if due is not None else None
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                if timer is not None:
                    timer.cancel()

    def _wake(self) -> None:
        """One idle worker looks again, if there is any; it passes the word on if more is due."""
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _resync(self) -> None:
        while True:
            # The first round comes after a random part of the period, so that restarted controllers do not march in step.
            await asyncio.sleep(self._random.uniform(self._resync_s / 2, self._resync_s))
            for key in list(self._keys()):
                self.enqueue_after(key, self._random.uniform(0, self._resync_s / 2))


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
