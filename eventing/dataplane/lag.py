"""How far subscriptions are behind, as a process reports it for those who look at objects: `kubectl get subscriptions -o wide`.

Reported is who is behind, not who is busy: a subscription whose oldest event has waited for `BEHIND_S`. One that keeps up has
some events under way at any moment, and writing down each time how many would cost more than anybody gains; `eventing why` and
the metrics have the figures of the moment. So a mesh that keeps up writes nothing, nor does one that is idle, or stands still:
the oldest event is told by its time, which stays the same while it waits.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from eventing.channels import Lag
from eventing.resources.kinds import Object

__all__ = ["BEHIND_S", "EVERY_S", "LagWatch", "Lags"]

EVERY_S: Final = 10.0
BEHIND_S: Final = 10.0
SLICE: Final = 20  # subscriptions looked at in one turn of the loop: one with thousands of retries waiting takes a millisecond
# The age of an event is measured, and its time worked out from it each time: what differs by less is the same event.
SAME_S: Final = 2.0

Lags = Callable[[bool], Iterable[tuple[str, str, bool, Lag]]]
"""Of every subscription in force, or (True) of those only whose channels are durable: uid, NAMESPACE/NAME, whether its channel is
durable, lag."""


class LagWatch:
    """What is to be reported. `stirred` gives something else once an event has been accepted or attempted here: while it does
    not, and nothing waits, in-memory channels need not be looked at."""

    def __init__(
        self, lags: Lags, stirred: Callable[[], object], *, wall: Callable[[], float], behind_s: float = BEHIND_S
    ) -> None:
        self._lags = lags
        self._stirred = stirred
        self._wall = wall
        self._behind_s = behind_s
        self._reported: dict[str, tuple[int | None, float | None]] = {}  # uid → events, time of the oldest
        self._ageless: set[str] = set()  # had events waiting whose age was not known
        self._last: object = None
        self._waiting = True

    async def changes(self) -> dict[str, Object | None]:
        """By uid, what is new since the last call: who is behind and how far; None: it is not behind any more."""
        stirred = self._stirred()
        quiet = stirred == self._last and not self._waiting
        self._last = stirred
        now = self._wall()
        changes: dict[str, Object | None] = {}
        seen: set[str] = set()
        ageless: set[str] = set()
        waiting = False
        for number, (uid, name, durable, lag) in enumerate(list(self._lags(quiet))):
            waiting = waiting or (not durable and lag.events != 0)
            if self._is_behind(uid, lag, ageless):
                seen.add(uid)
                oldest = None if lag.oldest_s is None else now - lag.oldest_s
                if self._is_news(uid, lag.events, oldest):
                    self._reported[uid] = (lag.events, oldest)
                    changes[uid] = {"subscription": name, "events": lag.events, "oldest": _moment(oldest)}
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        for uid in self._reported.keys() - seen:
            del self._reported[uid]
            changes[uid] = None
        self._ageless, self._waiting = ageless, waiting
        return changes

    def _is_behind(self, uid: str, lag: Lag, ageless: set[str]) -> bool:
        if lag.oldest_s is not None:
            return lag.oldest_s >= self._behind_s
        if not lag.events:
            return False
        ageless.add(uid)
        return uid in self._ageless  # for a whole round

    def _is_news(self, uid: str, events: int | None, oldest: float | None) -> bool:
        known = self._reported.get(uid)
        if known is None or known[0] != events or (known[1] is None) != (oldest is None):
            return True
        return oldest is not None and known[1] is not None and abs(known[1] - oldest) >= SAME_S


def _moment(wall: float | None) -> str | None:
    """RFC 3339 in whole seconds, as Kubernetes has its times."""
    return None if wall is None else datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
