"""Who waits where producers send more than this process can deliver: the producers, and not the events.

Each turn of the loop takes a request from every producer that has sent one, and as many answers of subscribers. With a fan-out of
ten the events then come in ten times too fast: every subscription falls behind, well ones included, and they overflow. So where
the processor is what deliveries wait for, an accepted event is answered only when some subscription of its channel has caught up.
202 still means stored, and a producer that waits for it sends at the rate at which the mesh delivers.

A producer never waits for a subscriber: as long as the processor has time to spare, and for a channel that any subscription
follows, answers go out at once. And none waits longer than `WAIT_MAX_S`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from eventing.ingress.routes import Route
from eventing.wire.request import Request

__all__ = ["Pace", "processor_share"]

LOOK_S: Final = 0.1  # how often the processor is looked at
TICK_S: Final = 0.005  # how often held answers are
# Shares of its time that the process has a processor or waits for one: above the first it is short of it, below the second not.
BUSY: Final = 0.9
SPARE: Final = 0.7
# A subscription that has fewer events before it has caught up: ten turns of 100 producers. A tenth of what overflows.
BEHIND: Final = 1000
WAIT_MAX_S: Final = 1.0

_SCHEDSTAT: Final = Path("/proc/self/schedstat")


def processor_share() -> Callable[[], float]:
    """A function that tells which share of the time since its last call this process has run, or waited to run (Linux)."""

    def used() -> float:
        try:
            ran, waited = _SCHEDSTAT.read_bytes().split()[:2]
        except (OSError, ValueError):
            return time.thread_time()
        return (int(ran) + int(waited)) / 1e9

    last = time.monotonic(), used()

    def share() -> float:
        nonlocal last
        before, last = last, (time.monotonic(), used())
        elapsed = last[0] - before[0]
        return (last[1] - before[1]) / elapsed if elapsed > 0 else 0.0

    return share


class Pace:
    """Holds back answers while the processor is `short`; `share` is a `processor_share`.

    Works from `start` to `close`, which lets go of what is held."""

    def __init__(self, *, share: Callable[[], float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.short = False
        self._share = share or processor_share()
        self._clock = clock
        self._held: dict[Route, deque[tuple[float, Request, bytes]]] = {}
        self._look: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._looked)

    def _looked(self) -> None:
        share = self._share()
        self.short = share > (SPARE if self.short else BUSY)
        if not self.short:
            self._let_go()
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._looked)

    def accepted(self, route: Route, request: Request, lines: bytes) -> None:
        """Answer 202 to a request whose events are stored: now, or when a subscription of the channel has caught up."""
        held = self._held.get(route)
        if held is None:
            if not route.behind(BEHIND):
                request.respond(202, lines)
                return
            held = self._held[route] = deque()
        held.append((self._clock() + WAIT_MAX_S, request, lines))
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        begun = self._clock()
        for route, held in list(self._held.items()):
            if not route.behind(BEHIND):
                del self._held[route]
                _answer(held)
                continue
            while held and held[0][0] <= begun:
                _, request, lines = held.popleft()
                request.respond(202, lines)
        self._tick = None
        if self._held:
            # With thousands of subscriptions a look is not cheap: it gets a twentieth of the time.
            pause = max(TICK_S, 20 * (self._clock() - begun))
            self._tick = asyncio.get_running_loop().call_later(pause, self._ticked)

    def _let_go(self) -> None:
        held, self._held = self._held, {}
        for answers in held.values():
            _answer(answers)

    def close(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self.short = False
        for timer in (self._look, self._tick):
            if timer is not None:
                timer.cancel()
        self._look = self._tick = None
        self._let_go()


def _answer(held: deque[tuple[float, Request, bytes]]) -> None:
    for _, request, lines in held:
        request.respond(202, lines)
