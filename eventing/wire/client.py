"""HTTP/1.1 client: keep-alive connections whose protocol object is the state machine of the exchange under way.

A connection belongs to the `eventing.wire.pool.Pool` of its origin.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import httptools

from eventing.bindings.http import HeaderName, announces_event
from eventing.wire.trailers import Sealed

if TYPE_CHECKING:  # each knows the other; the pool makes the connections
    from eventing.wire.pool import Pool

__all__ = ["ClientLimits", "Connection", "Exchange", "Origin", "ResponseFailure"]

# Above this, prefix, head and payload are written one after the other instead of being copied together first:
# 0.8 KB costs 80 ns to join, 64 KB 2,200, as measured.
JOIN_MAX: Final = 32 << 10


# Of a body that is no event, people and dead letters are told the beginning; what comes after it is not kept.
READ_MAX: Final = 4096


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


class Memo(dict[bytes, tuple[int, list[tuple[HeaderName, bytes]]]]):
    """Answers seen before, whole and without a body, by their bytes: an origin says the same thing thousands of times.

    Bounded, and of no use where every answer is different: then it stops learning (docs/decisions/0003-callbacks.md)."""

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

    @property
    def headers(self) -> list[tuple[HeaderName, bytes]]:
        """Of the last answer, as far as they have come."""
        return self._headers

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
        else:
            if header.framing:
                self._framed = True  # Content-Length or Transfer-Encoding; the other two are never in an answer
            if self._parser.get_status_code() // 100 != 2:
                self._headers.append((header, value))  # people want to see all of what did not succeed
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
        if self._body_bytes > READ_MAX and self._body and not announces_event(self._headers):
            return  # it has to come to its end, but is worth no memory
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
