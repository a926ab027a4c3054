"""Which keys are due, which are in work and which wait: a plain data structure that is told the time."""

import heapq
import random
from collections import deque
from dataclasses import dataclass
from typing import Final

__all__ = ["Backoff", "Key", "WorkQueue"]

Key = tuple[str, str]
"""Namespace and name of an object."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row: doubling from `first_s` to `longest_s`, half of it by chance."""

    first_s: float = 0.05
    longest_s: float = 60.0

    def delay(self, failures: int, rand: random.Random) -> float:
        ceiling = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 62))
        return rand.uniform(ceiling / 2, ceiling)


class WorkQueue:
    """Keys to work on. Each key is at most once in the queue and at most once in work.

    A key that is added while it is in work is due again when the work is done. A key may wait for a time; the earliest
    wish wins, and being added at once overtakes it. What is told the queue is bounded by the number of keys.
    """

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._queued: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()  # in work, and added meanwhile
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []  # may hold entries that _due has overtaken

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing is due now and nothing is in work."""
        return not self._ready and not self._working

    @property
    def waiting(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    @property
    def next_due(self) -> float | None:
        """When the next waiting key is due, None where none waits."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, key: Key) -> None:
        """The key is due now."""
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)

    def add_at(self, key: Key, when: float) -> None:
        """The key is due at `when`, or earlier if it already was to be."""
        if key in self._queued or self._due.get(key, when + 1) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, key))

    def take(self, now: float) -> Key | None:
        """The next key that is due, now in work, or None."""
        while (due := self.next_due) is not None and due <= now:
            self.add(heapq.heappop(self._heap)[1])
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The work on the key has ended."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)


DEFAULT_BACKOFF: Final = Backoff()
