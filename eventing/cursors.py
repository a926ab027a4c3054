"""What the cursors of durable back ends do alike, beside the port: what may be handed out, what was given back, what waits for
its time, and when to wake the consumer (C-11, C-17, C-18; docs/decisions/0002-channel-port.md, "What the experiments changed",
7).

An adapter says what arrives, what settling means, and what is lost.
"""

import asyncio
import heapq
from collections import deque
from typing import Any, Final, Generic, Protocol, TypeVar

from eventing.channels import ChannelHost, Consumer
from eventing.event import Event

__all__ = ["DurableCursor"]

_ORIGIN_MAX: Final = 200
_RECEIPT_DIGITS: Final = 19  # of a number of 64 bits


class _Held(Protocol):
    """A lease in the hands of its cursor; in the order in which the events came."""

    lost: bool

    def __lt__(self, other: Any, /) -> bool: ...


L = TypeVar("L", bound=_Held)


class DurableCursor(Generic[L]):
    """Holds leases that are not out. For adapters: no part of the port."""

    def __init__(self, consumer: Consumer, host: ChannelHost) -> None:
        self._consumer = consumer
        self._clock = host.clock
        self._receipts = f"{host.receipts}-".encode()
        self._knows = host.knows
        self._ready: deque[L] = deque()  # may be handed out for the first time
        self._back: list[L] = []  # due again: a heap in the order of arrival
        self._deferred: list[tuple[float, L]] = []  # a heap by time
        self._timer: asyncio.TimerHandle | None = None
        self._waking = False
        # A `take` gave less than it was asked for, and the consumer has not been woken since. A later one that gave all it was
        # asked for does not end it: a consumer asks for one when it has settled one, and has other slots free.
        self._short = True
        self._stopped = False  # nothing is handed out
        self._loop = asyncio.get_running_loop()

    def _met(self, event: Event, origin: bytes) -> None:
        """An event has come out of the back end, and with it the text of the receipt that it was accepted with.

        It gets its number back where this process has given it and still knows it; else the consumer gives it one. The text may
        be anybody's."""
        if origin.startswith(self._receipts):
            digits = origin[len(self._receipts) :]
            if digits.isdigit() and len(digits) < _RECEIPT_DIGITS and self._knows(number := int(digits)):
                event.receipt = number
                return
        self._consumer.arrived(event, origin[:_ORIGIN_MAX].decode("ascii", "replace"))

    def _give_back(self, lease: L) -> None:
        """Due again at once, before all that came later."""
        heapq.heappush(self._back, lease)
        self._wake_soon()

    def _hold(self, lease: L, until: float) -> None:
        """Due again then."""
        heapq.heappush(self._deferred, (until, lease))
        if self._deferred[0][1] is lease:
            self._set_timer()

    def _drop_lost(self) -> None:
        """Forget what is marked as lost."""
        self._ready = deque(lease for lease in self._ready if not lease.lost)
        self._back = [lease for lease in self._back if not lease.lost]
        heapq.heapify(self._back)
        self._deferred = [(until, lease) for until, lease in self._deferred if not lease.lost]
        heapq.heapify(self._deferred)
        self._set_timer()

    def _drop_all(self) -> None:
        """Forget everything; the end."""
        self._stopped = True
        self._ready.clear()
        self._back.clear()
        self._deferred.clear()
        self._set_timer()

    def _wake_soon(self) -> None:
        """Wake the consumer in the next turn of the loop, if there is something for it then."""
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        if (self._ready or self._back) and not self._stopped:
            self._short = False
            self._consumer.wake()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deferred:
            self._timer = self._loop.call_later(max(0.0, self._deferred[0][0] - self._clock()), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._clock()
        while self._deferred and self._deferred[0][0] <= now:
            heapq.heappush(self._back, heapq.heappop(self._deferred)[1])
        self._set_timer()
        self._wake()
