"""A listening socket that several processes accept from, so that each gets its share of the connections.

Left to the kernel, whoever runs at the moment takes all that wait: of 64 connections that came together, three processes got 47,
16 and 1. A connection stays where it is, so that this lasts. Here each process tells the others how many it has open, in memory
that they share, and leaves a new one for a moment to those that have fewer. Who takes none (busy, stopped, dead) is not waited
for: what nobody has taken after that moment is taken, the more at a time the longer that goes on.
"""

import asyncio
import logging
import mmap
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

__all__ = ["Loads", "SharedListener"]

log = logging.getLogger(__name__)

LEAVE_S: Final = 0.001  # how long a connection is left to the others
PATIENCE: Final = 16  # connections that nobody else has taken in time, until more than one is taken at once
TOGETHER_MAX: Final = 64
STARVED_S: Final = 1.0  # until the next try where none can be accepted: this process may open no more files, for one
CLOSING_S: Final = 1.0  # for handshakes under way at the end


class Loads:
    """How many connections each of `processes` has open; `own` is the number of this one. `fd` is a file of `size_of` bytes."""

    def __init__(self, fd: int, processes: int, own: int) -> None:
        self._counts = memoryview(mmap.mmap(fd, self.size_of(processes))).cast("Q")
        self._own = own
        self.tell(0)

    @staticmethod
    def size_of(processes: int) -> int:
        return 8 * processes

    def tell(self, count: int) -> None:
        """Tell the others that this process has so many."""
        self._counts[self._own] = count

    def least(self) -> int:
        """What the process with the fewest has."""
        return min(self._counts)


class SharedListener:
    """Accepts from `sock` until closed. `connect` makes a connection of an accepted socket; `count` says how many there are."""

    def __init__(
        self,
        sock: socket.socket,
        loads: Loads,
        *,
        connect: Callable[[socket.socket], Awaitable[object]],
        count: Callable[[], int],
    ) -> None:
        self._sock = sock
        self._loads = loads
        self._connect = connect
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._left = 0  # connections left to the others in a row, and not taken by them
        self._timer: asyncio.TimerHandle | None = None
        self._starved = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._waiting)

    def _waiting(self) -> None:
        """Somebody waits for a connection."""
        own = self._count() + len(self._connecting)
        self._loads.tell(own)
        if own > self._loads.least():
            self._pause(LEAVE_S)
            return
        self._left = 0
        self._accept(1)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        """Take what nobody has taken meanwhile."""
        self._timer = None
        self._loop.add_reader(self._sock, self._waiting)
        taken = self._accept(min(2 ** max(0, self._left - PATIENCE), TOGETHER_MAX))
        self._left = min(self._left + 1, 2 * PATIENCE) if taken else 0

    def _accept(self, most: int) -> int:
        """Accept up to so many that wait; how many there were."""
        for taken in range(most):
            try:
                accepted, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return taken
            except OSError as error:
                if not self._starved:
                    log.error("no connection can be accepted for now", extra={"error": error.strerror or str(error)})
                self._starved = True
                self._pause(STARVED_S)
                return taken
            self._starved = False
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._connected(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
            self._loads.tell(self._count() + len(self._connecting))
        return most

    async def _connected(self, accepted: socket.socket) -> None:
        # A client that breaks its handshake off, or is gone already, is nobody's fault.
        with suppress(OSError):
            await self._connect(accepted)

    async def aclose(self) -> None:
        """Take what still waits, then accept no more. The others go on."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        while self._accept(TOGETHER_MAX) == TOGETHER_MAX:
            await asyncio.sleep(0)
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()
        self._sock.close()
        if self._connecting:
            _, late = await asyncio.wait(self._connecting, timeout=CLOSING_S)
            for task in late:
                task.cancel()
