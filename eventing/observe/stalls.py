"""Whether the event loop turns: looked at from a thread of its own, since a loop that is stuck cannot look at itself."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eventing.observe.health import Check, State

__all__ = ["LOOP", "LoopFigures", "LoopWatch", "loop_check"]

LATE_S: Final = 1.0  # a turn that comes later than this is counted as a stall


@dataclass(slots=True)
class LoopFigures:
    """What was seen of this process's loop. `watched` is False where nobody looks."""

    watched: bool = False
    lag_s: float = 0.0  # how late it was at the last look
    longest_s: float = 0.0  # and at worst
    stalls: int = 0  # looks at which it was later than LATE_S


LOOP: Final = LoopFigures()
"""Of the one loop that a process of the mesh has."""


class LoopWatch:
    """Looks at the running loop every `every_s`. After `stuck_s` without an answer `stuck` is told for how long and where it
    hangs; after `end_s`, `end` is called. Both in threads of their own.

    Time is counted in looks, not by a clock: a process that was stopped, or a machine that slept, is no stall.
    """

    def __init__(
        self,
        *,
        stuck: Callable[[float, str], None],
        end: Callable[[], None],
        every_s: float = 1.0,
        stuck_s: float = 5.0,
        end_s: float = 30.0,
        figures: LoopFigures = LOOP,
    ) -> None:
        self._stuck = stuck
        self._end = end
        self._every_s = every_s
        self._stuck_looks = max(1, round(stuck_s / every_s))
        self._end_looks = max(1, round(end_s / every_s))
        self._figures = figures
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._answered = True
        self._asked_at = 0.0
        self._thread = threading.Thread(target=self._look, name="loop-watch", daemon=True)

    def start(self) -> None:
        self._figures.watched = True
        self._thread.start()

    def stop(self) -> None:
        self._figures.watched = False
        self._stopped.set()

    def _look(self) -> None:
        looks = 0
        while not self._stopped.wait(self._every_s):
            if self._answered:
                looks = 0
                self._answered = False
                self._asked_at = time.monotonic()
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:
                    return  # the loop is closed: the process ends
                continue
            looks += 1
            if looks == self._stuck_looks:
                # Whoever is told may hang too, at the very pipe that the loop hangs at.
                told = looks * self._every_s, _stack(self._thread_id)
                threading.Thread(target=self._stuck, args=told, name="loop-stuck", daemon=True).start()
            if looks >= self._end_looks:
                self._end()
                return

    def _answer(self) -> None:
        figures = self._figures
        figures.lag_s = lag_s = time.monotonic() - self._asked_at
        figures.longest_s = max(figures.longest_s, lag_s)
        figures.stalls += lag_s > LATE_S
        self._answered = True


def _stack(thread_id: int) -> str:
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the documented way to see another thread's stack
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def loop_check(figures: LoopFigures = LOOP) -> Check:
    """That this is answered says that the loop turns; how late it was, too."""
    if not figures.watched:
        return Check("loop")
    text = f"{figures.lag_s * 1000:.1f} ms late at the last look, {figures.longest_s:.1f} s at worst, {figures.stalls} stalls"
    return Check("loop", State.OK, text)
