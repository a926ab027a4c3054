"""Virtual time: an hour of back-off in a millisecond, to the nanosecond.

`VirtualClock` is a clock to hand in wherever a clock is a parameter. `VirtualClock.run` runs a coroutine on an event loop that
lives in it: whenever the loop has nothing to do but wait, its time jumps to the next timer. Everything the coroutine waits for
must therefore live in that loop, real sockets between tasks of the loop included; work in the loop's executor is waited for.
What another process or a thread of its own does takes no virtual time at all.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["StuckError", "VirtualClock", "VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NS: Final = 1_000_000_000
# Between looking at the sockets and jumping: bytes on their way through the loopback device arrive within this.
_LOOPBACK_S: Final = 0.0001
_SLICE_S: Final = 0.05


class StuckError(Exception):
    """The loop has no timer and nothing reaches it: whatever the test waits for will never happen."""


class VirtualClock:
    """Time that stands still until told otherwise.

    Counts whole nanoseconds, so that elapsed times can be compared exactly. `now` is monotonic time in seconds and does not
    begin at 0, since code may take 0 for "never". `wall` is the calendar's, in seconds since 1970, and can be set wrong.
    """

    def __init__(self, start: float = 1000.0, wall: float = 1_767_225_600.0) -> None:
        self._began_ns = self._now_ns = round(start * _NS)
        self._wall_offset_ns = round(wall * _NS) - self._now_ns

    def __call__(self) -> float:
        return self.now()

    def __repr__(self) -> str:
        return f"<VirtualClock {self.elapsed} s after its start>"

    def now(self) -> float:
        """Monotonic time, as `time.monotonic` and `loop.time` give it."""
        return self._now_ns / _NS

    def wall(self) -> float:
        """Calendar time, as `time.time` gives it. 2026-01-01T00:00:00Z unless chosen otherwise."""
        return (self._now_ns + self._wall_offset_ns) / _NS

    def utc_now(self) -> datetime:
        """`wall` as a datetime in UTC, to the microsecond."""
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=(self._now_ns + self._wall_offset_ns) // 1000)

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made, without the rounding errors of adding and subtracting floats."""
        return (self._now_ns - self._began_ns) / _NS

    def advance(self, seconds: float) -> None:
        """Let time pass. On a loop that lives in this clock, the timers that are due then run in its next turn."""
        if seconds < 0:
            raise ValueError("monotonic time does not go back; `jump_wall` sets the calendar's")
        self._now_ns += round(seconds * _NS)

    def jump_wall(self, seconds: float) -> None:
        """Set the calendar forward or back, as an administrator or NTP does; monotonic time does not move."""
        self._wall_offset_ns += round(seconds * _NS)

    def run(self, main: Coroutine[Any, Any, T], *, patience_s: float = 5.0) -> T:
        """Run `main` on a new loop that lives in this clock, as `asyncio.run` does, and return its result.

        Raises StuckError when nothing has happened for `patience_s` seconds of real time and no timer is set.
        """
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(self, patience_s=patience_s)) as runner:
            return runner.run(main)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is that of a VirtualClock, which it moves while it has nothing else to do."""

    def __init__(self, clock: VirtualClock | None = None, *, patience_s: float = 5.0) -> None:
        self.clock = clock or VirtualClock()
        self._outside = 0
        super().__init__(_JumpingSelector(self.clock, lambda: self._outside, patience_s))

    def time(self) -> float:
        return self.clock.now()

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """As any loop's; time stands still until the executor is done."""
        self._outside += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _future: "asyncio.Future[Any]") -> None:
        self._outside -= 1


class _JumpingSelector(selectors.BaseSelector):
    """A selector that moves the clock where another would wait."""

    def __init__(self, clock: VirtualClock, outside: Callable[[], int], patience_s: float) -> None:
        self._clock = clock
        self._outside = outside
        self._patience_s = patience_s
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if len(self._real.get_map()) > 1:  # the loop's own wake-up pipe is always there
            time.sleep(_LOOPBACK_S)
            ready = self._real.select(0)
        patience = time.monotonic() + self._patience_s
        while not ready and (timeout is None or self._outside()):
            ready = self._real.select(_SLICE_S)
            if not ready and not self._outside() and time.monotonic() > patience:
                raise StuckError(
                    f"no timer is set and nothing has reached the loop for {self._patience_s:g} s of real time, "
                    f"{self._clock.elapsed:g} s of virtual time after the start: what is waited for will not happen"
                )
        if not ready and timeout is not None:
            # Never less than a tick: who is called a fraction of one too early, and waits for the rest, would wait for ever.
            self._clock.advance(max(timeout, 1 / _NS))
        return ready

    def register(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: "FileDescriptorLike") -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: "FileDescriptorLike", events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> "Mapping[FileDescriptorLike, selectors.SelectorKey]":
        return self._real.get_map()
