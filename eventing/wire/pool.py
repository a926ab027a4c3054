"""The connections to one origin.

Whoever wants one asks `take`; where none is idle, `wait` queues it and the pool opens more up to its limit. A finished connection
goes to whoever waits longest.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from eventing.bindings.http import HeaderNames
from eventing.wire.client import ClientLimits, Connection, Exchange, Memo, Origin, ResponseFailure

__all__ = ["Connector", "Pool", "Waiter"]


class Waiter(Protocol):
    """Who waits for a connection."""

    def connected(self, connection: Connection) -> None:
        """A connection is yours: send on it, or give it back with `Pool.put`."""

    def unconnected(self, failure: ResponseFailure) -> None:
        """An attempt to open a connection on your behalf failed."""

    @property
    def under_way(self) -> int:
        """How many connections of the pool you have; asked where there are too few."""

    def starving(self, now: float) -> bool:
        """Whether you have none and have waited longer than is fair; asked in each sweep."""

    def overdue(self, now: float) -> bool:
        """Whether you have none and have waited as long as a whole attempt may take; asked in each sweep. Then you are told
        `unconnected`."""


_OVERDUE: Final = ResponseFailure("ConnectTimeout", "no connection within the time that the attempt has")
_TOO_LATE: Final = ResponseFailure("Timeout", "no complete answer in time")
_POOL_CLOSED: Final = ResponseFailure("ConnectionLost", "the pool of connections is closed")


Connector = Callable[[Origin, Callable[[], Connection]], Awaitable[None]]
"""Resolves, checks and connects: raises ConnectionRefusedError etc. (OSError), ssl.SSLError, or a denial as PermissionError."""


class Pool:
    """Connections to one origin, at most `limit`, handed out in the order of asking.

    `waiting` is who waits: while there is anybody, whoever has finished with a connection should `put` it and queue again.

    Owned by a `Pools`-like owner that calls `sweep` (10 times a second) and runs `spawn`ed coroutines in its TaskGroup.
    """

    def __init__(
        self,
        origin: Origin,
        connector: Connector,
        spawn: Callable[[Awaitable[None]], object],
        *,
        names: HeaderNames,
        limits: ClientLimits | None = None,
        limit: int = 64,
        connect_s: float = 10.0,
    ) -> None:
        self.origin = origin
        self.names = names
        self.limits = limits or ClientLimits()
        self.memo = Memo()
        self._connector = connector
        self._spawn = spawn
        self._limit = limit
        self._connect_s = connect_s
        self._busy: set[Connection] = set()
        self._opening = 0
        self.idle: list[Connection] = []
        self.waiting: deque[Waiter] = deque()
        self._resends: deque[tuple[Connection, Exchange, tuple[bytes, bytes, bytes]]] = deque()
        self._crowded = False
        self.closed = False
        self._unused_since: float | None = None

    @property
    def open_connections(self) -> int:
        return len(self.idle) + len(self._busy)

    def take(self) -> Connection | None:
        """An idle connection, or None: then `wait`."""
        if self.waiting:
            return None
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None:
                self._busy.add(connection)
                return connection
        return None

    def wait(self, waiter: Waiter, wanted: int = 1) -> None:
        """Queue for a connection; open up to `wanted` more as far as the limit allows."""
        if self.closed:
            asyncio.get_running_loop().call_soon(waiter.unconnected, _POOL_CLOSED)
            return
        self.waiting.append(waiter)
        self._open(wanted)

    def forget(self, waiter: Waiter) -> None:
        """The waiter has gone elsewhere."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)

    def _open(self, wanted: int) -> None:
        room = self._limit - self.open_connections - self._opening
        for _ in range(min(wanted - self._opening, room)):
            self._opening += 1
            self._spawn(self._connect())

    async def _connect(self) -> None:
        made: list[Connection] = []

        def factory() -> Connection:
            made.append(Connection(self))
            return made[-1]

        try:
            async with asyncio.timeout(self._connect_s):
                await self._connector(self.origin, factory)
        except (OSError, ValueError) as error:  # ValueError: names that no resolver takes, certificates that are none
            self._opening -= 1
            self._unconnected(_connect_failure(error, self._connect_s))
            return
        self._opening -= 1
        connection = made[-1]
        if self.closed:
            connection.close()
            return
        if connection.transport is None:
            self._unconnected(ResponseFailure("ConnectionLost", "the connection was closed as soon as it was open"))
            return
        self._busy.add(connection)
        self.put(connection)
        if self.waiting:
            self._open(1)  # more wait than asked for connections of their own: one that was being opened might have done for all

    def _unconnected(self, failure: ResponseFailure) -> None:
        while self._resends:
            stale, exchange, _ = self._resends.popleft()
            exchange.failed(stale, failure)
        # Each who waits hears of it: a queue before a dead origin must not drain one connect at a time.
        for waiter in [self.waiting.popleft() for _ in range(len(self.waiting))]:
            waiter.unconnected(failure)

    def put(self, connection: Connection) -> None:
        """Give a connection back: to the request to send again, else to who waits longest, else to the idle ones."""
        if connection.transport is None:
            self.lost(connection)
            return
        if self._resends:
            stale, exchange, (prefix, head, payload) = self._resends.popleft()
            connection.lease, connection.number, connection.started = stale.lease, stale.number, stale.started
            connection.served = 0  # it is not sent a third time
            connection.send(exchange, prefix, head, payload, stale.deadline)
        elif self.waiting:
            if self._crowded:
                waiter = min(self.waiting, key=_under_way)
                self.waiting.remove(waiter)
            else:
                waiter = self.waiting.popleft()
            waiter.connected(connection)
        else:
            self._crowded = False
            self._busy.discard(connection)
            self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """A connection is gone. Those who wait get another."""
        self._busy.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if (self.waiting or self._resends) and not self.closed:
            self._open(1)

    def resend(self, stale: Connection, exchange: Exchange, sent: tuple[bytes, bytes, bytes]) -> None:
        """A kept connection was closed under a request before any byte of the answer: send it once more elsewhere.

        Not an attempt of its own: the subscriber closed an idle connection in the moment of its reuse (RFC 9112 §9.3.1).
        """
        if self.closed:
            exchange.failed(stale, _POOL_CLOSED)
            return
        self._resends.append((stale, exchange, sent))
        if self.idle:
            connection = self.idle.pop()
            self._busy.add(connection)
            self.put(connection)

    def sweep(self, now: float) -> None:
        for connection in [c for c in self._busy if c.deadline and c.deadline < now]:
            connection.expire()
        for resend in [resend for resend in self._resends if resend[0].deadline < now]:
            self._resends.remove(resend)
            resend[1].failed(resend[0], _TOO_LATE)
        for waiter in [waiter for waiter in self.waiting if waiter.overdue(now)]:
            self.forget(waiter)
            waiter.unconnected(_OVERDUE)
        while self.idle and self.open_connections > self._limit:
            self.idle.pop().close()
        if self.waiting and self.open_connections + self._opening >= self._limit:
            self._feed([waiter for waiter in self.waiting if waiter.starving(now)])

    def _feed(self, starving: Sequence[Waiter]) -> None:
        """Others hold all connections and do not end: each of these gets one beyond the limit, so that a stuck subscriber
        holds up nobody else of its origin. Until nobody waits, who has least under way goes first: nobody needs more than one."""
        for _ in starving[self._opening :]:
            self._crowded = True
            self._opening += 1
            self._spawn(self._connect())

    def unused(self, now: float, for_s: float) -> bool:
        """Nobody has used the pool for so long; asked in each sweep."""
        if self._busy or self.waiting or self._opening or self._resends:
            self._unused_since = None
            return False
        if self._unused_since is None:
            self._unused_since = now
        return now - self._unused_since > for_s

    def close_idle(self) -> None:
        """Close the connections that nobody uses now."""
        for connection in self.idle:
            connection.close()
        self.idle.clear()

    def close(self) -> None:
        """Cut every connection; whoever waits for one or for an answer hears of it."""
        self.closed = True
        for connection in [*self.idle, *self._busy]:
            connection.close()
        self.idle.clear()
        self._unconnected(_POOL_CLOSED)


def _under_way(waiter: Waiter) -> int:
    return waiter.under_way


def _connect_failure(error: OSError | ValueError, limit_s: float) -> ResponseFailure:
    if isinstance(error, PermissionError):
        return ResponseFailure("AddressDenied", str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return ResponseFailure("TLSError", f"the certificate is not accepted: {error.verify_message.rstrip('.')}")
    if isinstance(error, ssl.SSLError):
        return ResponseFailure("TLSError", error.strerror or str(error))
    if isinstance(error, TimeoutError):
        return ResponseFailure("ConnectTimeout", f"no connection within {limit_s:g} s")
    if type(error).__name__ == "gaierror":
        return ResponseFailure("NameNotResolved", str(error))
    return ResponseFailure("ConnectFailed", str(error) or type(error).__name__)
