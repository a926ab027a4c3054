"""HTTP/1.1 client: keep-alive connections whose protocol object is the state machine of the exchange under way.

A `Pool` holds the connections to one origin. Whoever wants one asks `take`; where none is idle, `wait` queues it and the pool
opens more up to its limit. A finished connection goes to whoever waits longest.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import httptools

from eventing.bindings.http import HeaderName, HeaderNames
from eventing.wire.trailers import Sealed

__all__ = ["ClientLimits", "Connection", "Connector", "Exchange", "Origin", "Pool", "ResponseFailure", "Waiter"]

# Above this, prefix, head and payload are written one after the other instead of being copied together first:
# 0.8 KB costs 80 ns to join, 64 KB 2,200 (reference/hot-path.md §3).
JOIN_MAX: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of one answer. Beyond them the connection is given up and the exchange ends with the failure named."""

    header_bytes: int = 32 << 10  # HeadersTooLarge
    header_count: int = 200  # HeadersTooLarge
    body_bytes: int = 1 << 20  # BodyTooLarge; a reply is an event and gets as much room as the ingress gives


@dataclass(frozen=True, slots=True)
class ResponseFailure:
    """Why an exchange ended without a whole answer. `kind` is a stable word, `detail` is for people."""

    kind: str
    detail: str
    status: int = 0  # of the answer's head, where one came before the failure


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pool connects: scheme, host, port; `ca_certs` is a PEM bundle trusted for it besides the system's."""

    scheme: str
    host: str
    port: int
    ca_certs: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


class Exchange(Protocol):
    """What a connection reports to: exactly one of the two, once per `Connection.send`."""

    def responded(self, connection: "Connection", status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None: ...

    def failed(self, connection: "Connection", failure: ResponseFailure) -> None: ...


class Waiter(Protocol):
    """Who waits for a connection."""

    def connected(self, connection: "Connection") -> None:
        """A connection is yours: send on it, or give it back with `Pool.put`."""

    def unconnected(self, failure: ResponseFailure) -> None:
        """An attempt to open a connection on your behalf failed."""

    @property
    def under_way(self) -> int:
        """How many connections of the pool you have; asked where there are too few."""

    def starving(self, now: float) -> bool:
        """Whether you have none and have waited longer than is fair; asked in each sweep."""


class Memo(dict[bytes, tuple[int, list[tuple[HeaderName, bytes]]]]):
    """Answers seen before, whole and without a body, by their bytes: an origin says the same thing thousands of times.

    Bounded, and of no use where every answer is different: then it stops learning (reference: hot path, "Response memo")."""

    SIZE_MAX: Final = 512
    ENTRIES_MAX: Final = 64

    def __init__(self) -> None:
        super().__init__()
        self.hits = 0
        self._learnt = 0

    def learn(self, data: bytes, status: int, headers: list[tuple[HeaderName, bytes]]) -> None:
        if len(data) > self.SIZE_MAX or not data.endswith(b"\r\n\r\n") or status < 200:
            return
        if self._learnt > 1000 and self.hits < self._learnt:
            return
        if len(self) >= self.ENTRIES_MAX:
            self.clear()
        self._learnt += 1
        self[data] = (status, headers)


_BODILESS: Final = frozenset({204, 304})


class Connection(asyncio.Protocol):
    """One connection to an origin.

    `lease`, `number` and `started` are whatever the sender wants to find again when the exchange ends: the connection is the
    state machine of a delivery, so that a delivery needs no object of its own. `deadline` is swept by the pool.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_seen",
        "_clean",
        "_complete",
        "_exchange",
        "_framed",
        "_head_bytes",
        "_header_count",
        "_headers",
        "_parser",
        "_reusable",
        "_sent",
        "_status",
        "deadline",
        "lease",
        "number",
        "pool",
        "served",
        "started",
        "transport",
    )

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.deadline = 0.0
        self.served = 0
        self.lease: Any = None
        self.number = 0
        self.started = 0.0
        self.transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._sent: tuple[bytes, bytes, bytes] | None = None
        self._status = 0
        self._headers: list[tuple[HeaderName, bytes]] = []
        self._header_count = 0
        self._head_bytes = 0
        self._clean = True  # between two answers
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_seen = 0
        self._framed = False
        self._complete = False
        self._reusable = False

    def send(self, exchange: Exchange, prefix: bytes, head: bytes, payload: bytes, deadline: float) -> None:
        """Send one request: request line and fixed headers, the event's head, its payload. The answer goes to `exchange`."""
        transport = self.transport
        if transport is None:
            raise RuntimeError("the connection is closed")
        self._exchange = exchange
        self.deadline = deadline
        self._status = 0
        # Kept only until the first byte of the answer: a connection that turns out stale has the request sent once more.
        self._sent = (prefix, head, payload) if self.served else None
        if len(payload) < JOIN_MAX:
            transport.write(b"".join((prefix, head, payload)))
        else:
            transport.writelines((prefix, head, payload))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.close()  # an answer nobody asked for: nothing on this connection can be matched any more
            return
        self._sent = None
        memo = self.pool.memo
        if self._clean and (known := memo.get(data)) is not None:
            # From a clean state the parse is a function of the bytes: this very answer was parsed before.
            memo.hits += 1
            exchange, self._exchange = self._exchange, None
            self.deadline = 0.0
            self.served += 1
            exchange.responded(self, known[0], known[1], b"")
            return
        clean, self._clean = self._clean, False
        try:
            self._parser.feed_data(data)
            if not self._complete:
                self._count(len(data))
        except _GivenUpError:
            return
        except httptools.HttpParserUpgrade:
            self._fail(ResponseFailure("ProtocolError", "the answer switches protocols", self._status))
            return
        except httptools.HttpParserCallbackError:
            if self._exchange is None:
                return
            if not self._complete:
                raise
            self._reusable = False  # the answer, and behind it more than was asked for
        except httptools.HttpParserError as error:
            if not self._complete:
                self._fail(ResponseFailure("ProtocolError", f"the answer is not HTTP/1.1: {error}", self._status))
                return
            self._reusable = False
        if self._complete:
            self._clean = True
            if clean and self._reusable and not self._body:
                memo.learn(data, self._status, self._headers)
            self._finish(reusable=self._reusable)

    def eof_received(self) -> bool:
        if self._exchange is None:
            self.close()  # an idle connection that the other side has closed is of no use from this moment
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        exchange = self._exchange
        if exchange is None:
            self.pool.lost(self)
            return
        if self._status >= 200 and not self._framed and exc is None:
            self._finish(reusable=False)  # RFC 9112 §6.3: a body without length ends with the connection
            return
        if self._sent is not None:
            self._exchange = None
            self.pool.resend(self, exchange, self._sent)
            self.pool.lost(self)
            return
        detail = (
            str(exc)
            if exc
            else (
                "the connection was closed in the middle of the answer"
                if self._status
                else "the connection was closed without an answer"
            )
        )
        self._fail(ResponseFailure("ConnectionLost", detail, self._status))

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise _GivenUpError  # one answer was asked for
        self._headers = []
        self._header_count = 0
        self._head_bytes = 0
        self._body = []
        self._body_bytes = 0
        self._body_seen = 0
        self._framed = False

    def on_chunk_header(self) -> None:
        # What is named behind the body is not part of the head (RFC 9110 §6.5.1).
        if not isinstance(self._headers, Sealed):
            self._headers = Sealed(self._headers)

    def on_header(self, name: bytes, value: bytes) -> None:
        header = self.pool.names[name]
        if header.kept:
            self._headers.append((header, value))
        elif header.framing:
            self._framed = True  # Content-Length or Transfer-Encoding; the other two are never in an answer
        self._header_count += 1
        if self._header_count > self.pool.limits.header_count:
            self._too_large_head()

    def _count(self, size: int) -> None:
        """Bound what is no body: a head, or what chunks may say beside their data."""
        if self._body_bytes != self._body_seen:
            self._body_seen = self._body_bytes
            self._head_bytes = 0
            return
        self._head_bytes += size
        if self._head_bytes > self.pool.limits.header_bytes:
            self._too_large_head()

    def _too_large_head(self) -> None:
        limits = self.pool.limits
        self._fail(
            ResponseFailure(
                "HeadersTooLarge",
                f"more than {limits.header_count} headers or {limits.header_bytes} bytes of them",
                self._parser.get_status_code(),
            )
        )
        raise _GivenUpError

    def on_headers_complete(self) -> None:
        status = self._status = self._parser.get_status_code()
        self._head_bytes = 0
        if status in _BODILESS:
            self._framed = True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.pool.limits.body_bytes:
            self._fail(
                ResponseFailure(
                    "BodyTooLarge", f"the body of the answer has more than {self.pool.limits.body_bytes} bytes", self._status
                )
            )
            raise _GivenUpError
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status >= 200:  # 1xx answers announce another one
            self._complete = True
            # Asked here and not later: the parser forgets how the message was framed when it begins the next.
            self._reusable = self._framed and self._parser.should_keep_alive()

    # the end of an exchange

    def _finish(self, *, reusable: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        self._complete = False
        self.deadline = 0.0
        self.served += 1
        body = self._body
        if not reusable:
            self.close()
        exchange.responded(self, self._status, self._headers, b"".join(body) if body else b"")

    def _fail(self, failure: ResponseFailure) -> None:
        exchange = self._exchange
        self._exchange = None
        self._sent = None
        self.close()
        if exchange is not None:
            exchange.failed(self, failure)
        self.pool.lost(self)

    def expire(self) -> None:
        """The deadline has passed: give up."""
        self._fail(ResponseFailure("Timeout", "no complete answer in time", self._status))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


class _GivenUpError(Exception):
    """Stops the parser; never leaves `data_received`."""


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
    if isinstance(error, ssl.SSLError):
        return ResponseFailure("TLSError", str(error))
    if isinstance(error, TimeoutError):
        return ResponseFailure("ConnectTimeout", f"no connection within {limit_s:g} s")
    if type(error).__name__ == "gaierror":
        return ResponseFailure("NameNotResolved", str(error))
    return ResponseFailure("ConnectFailed", str(error))
