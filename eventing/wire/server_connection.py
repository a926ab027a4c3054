"""One connection of the server: parse, hand over, answer in order, bound everything."""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import httptools

from eventing.bindings.http import HeaderName
from eventing.bindings.shapes import Shape
from eventing.event import Event
from eventing.wire.request import OldRequest, Request, problem
from eventing.wire.trailers import Sealed

if TYPE_CHECKING:
    from eventing.wire.server import HttpServer

__all__ = ["PIECE", "ServerConnection"]

_REASONS: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
# How long a refused client may go on sending until its connection is cut: closed at once, with bytes unread, TCP would reset the
# connection and the client might never see why (RFC 9112 §9.6).
LINGER_S: Final = 2.0
# What came is parsed in pieces of at most this size, so that what is counted by piece is bounded by little more than its limit.
PIECE: Final = 16 << 10
# A body is kept in pieces as they come; so many small ones are made into one, since each costs more than the byte in it.
PIECES_MAX: Final = 1024
_CHUNKED: Final = b"chunked"
_VERSIONS: Final = frozenset({"1.0", "1.1"})
# Shapes of requests that a connection tries before it parses: few producers send more kinds of events over one.
SHAPES_MAX: Final = 4
# From so many requests of no known shape on, a connection on which they are the most is one for the parser.
SHAPELESS: Final = 64


class ServerConnection(asyncio.Protocol):
    """The state machine of one connection: parse, hand over, answer in order, bound everything."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_seen",
        "_dropped",
        "_expects",
        "_head_bytes",
        "_headers",
        "_held",
        "_hits",
        "_host",
        "_hosts",
        "_length",
        "_loop",
        "_misses",
        "_names",
        "_old",
        "_parser",
        "_pending",
        "_read_paused",
        "_refused",
        "_shapes",
        "_since",
        "_state",
        "_target",
        "_transport",
        "_whole",
        "_write_paused",
        "peer",
        "peer_bytes",
        "server",
    )

    IDLE, HEAD, BODY, WORKING, LINGERING = range(5)

    def __init__(self, server: "HttpServer", loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop
        self.peer = ""
        self.peer_bytes = b""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Request] = deque()
        self._state = self.IDLE
        self._since = loop.time()
        self._read_paused = False
        self._write_paused = False
        self._refused = False
        self._target = b""
        self._host = b""
        self._headers: list[tuple[HeaderName, bytes]] = []
        self._names = server.names
        self._dropped = 0  # headers that mean nothing here
        self._old = False  # HTTP/1.0 with a Connection header
        self._hosts = 0
        self._head_bytes = 0
        self._expects = False
        self._length = b""  # of the body: digits, or chunked
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_seen = 0
        self._held = 0  # bytes of a request that has not come whole
        self._shapes: tuple[Shape, ...] = ()
        self._hits = self._misses = 0
        self._whole = b""  # what came, while it is read, if it began a request

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
        self.peer_bytes = self.peer.encode()
        self.server.connections.add(self)
        self.server.accepted_total += 1
        if len(self.server.connections) > self.server.limits.connections:
            self._refuse(503, "too many connections", b"retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self._transport = None
        self._pending.clear()
        self._release()

    def eof_received(self) -> bool:
        # A client may shut down its sending side and still read the answer to what it sent; then it is over.
        if self._pending:
            self._pending[-1].keep_alive = False
        return bool(self._pending)

    def pause_writing(self) -> None:
        # A client that reads no answers is given none: else they would pile up here.
        self._write_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if not self._pending:
            self._resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self._state:
            for shape in self._shapes:
                event = shape.read(data)
                if event is not None and len(event.data) <= self.server.limits.body_bytes:
                    self._hits += 1
                    self._hand_over(Request(self, b"POST", shape.target, shape.host, shape.headers, event.data, True, event))
                    return
            self._whole = data
        if len(data) <= PIECE:
            self._parse(data)
        else:
            for at in range(0, len(data), PIECE):
                self._parse(data[at : at + PIECE])
        self._whole = b""

    def _parse(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
            if self._state:  # else the request has come whole and is answered, as nearly always
                self._count(len(data))
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            if not self._refused:
                raise
        except httptools.HttpParserInvalidMethodError:
            self._refuse(405, f"not a method of HTTP; served here: {self.server.methods}{self.server.hint}", self.server.allow)
        except httptools.HttpParserError as error:
            self._refuse(400, f"not HTTP/1.1: {error}")

    def _count(self, size: int) -> None:
        """Bound a request that has not come whole: what is kept of it, and what is no body (a head, what chunks say beside)."""
        state, server = self._state, self.server
        if state not in {self.HEAD, self.BODY}:
            return
        self._held += size
        server.held_bytes += size
        if server.held_bytes > server.limits.held_bytes:
            self._refuse(503, "too many large requests are coming in at the same time", b"retry-after: 1\r\n")
        elif state == self.BODY and self._body_bytes != self._body_seen:
            self._body_seen = self._body_bytes
            self._head_bytes = 0
            if len(self._body) > PIECES_MAX:
                self._body = _in_blocks(self._body)
        else:
            self._head_bytes += size
            if self._head_bytes > server.limits.header_bytes:
                self._refuse(431, f"the headers of the request have more than {server.limits.header_bytes} bytes")
            elif state == self.HEAD and len(self._headers) + self._dropped > server.limits.header_count:
                self._refuse(431, f"more than {server.limits.header_count} headers")

    def _release(self) -> None:
        """What was kept of a request is the application's now, or dropped."""
        self.server.held_bytes -= self._held
        self._held = 0

    def _ignore_upgrade(self, rest: bytes) -> None:
        """An offer to upgrade is ignored (data-plane contract; Java's own client makes one with every first request). The parser
        takes it up and leaves the body unread, so another one goes on behind the head, told how long the body is."""
        keep_alive, method = self._parser.should_keep_alive(), self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, f"CONNECT is not served; served here: {self.server.methods}", self.server.allow)
            return
        self._parser = httptools.HttpRequestParser(self)
        length, head = self._length, (self._target, self._host, self._headers)
        close = b"" if keep_alive else b"connection: close\r\n"
        bodiless = not length.strip(b"0")
        framing = b"transfer-encoding: chunked" if bodiless or length == _CHUNKED else b"content-length: " + length
        self._parser.feed_data(method + b" / HTTP/1.1\r\nhost: x\r\n" + close + framing + b"\r\n\r\n")
        self._target, self._host, self._headers = head
        if bodiless:
            rest = b"0\r\n\r\n" + rest
        if rest:
            self._parse(rest)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._state = self.HEAD
        self._head_bytes = -PIECE  # the piece in which it begins may hold the end of the one before
        self._length = b""
        self._since = self._loop.time()
        self._target = b""
        self._host = b""
        self._hosts = 0
        self._dropped = 0
        self._headers = []
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target = self._target + url if self._target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        header = self._names[name]
        if header.kept:
            self._headers.append((header, value))
        elif header.framing:
            self._frame(header.lower, value)
        else:
            self._dropped += 1

    def _frame(self, name: bytes, value: bytes) -> None:
        """The headers that the server itself must look at."""
        limit = self.server.limits.body_bytes
        if self._state != self.HEAD:
            return  # a trailer
        if name == b"host":
            self._hosts += 1
            self._host = value
        elif name == b"content-length":
            if int(value) > limit:
                self._refuse(413, f"the body has {int(value)} bytes, the limit is {limit}")
                raise _RefusedError
            self._length = value
        elif name == b"transfer-encoding":
            self._length = _CHUNKED
            if value.strip(b" \t").lower() != _CHUNKED:
                self._refuse(501, "no other transfer coding than chunked is read")
                raise _RefusedError
            if self._parser.get_http_version() == "1.0":
                self._refuse(
                    400, "HTTP/1.0 has no transfer codings, so where this request ends is not certain (RFC 9112 section 6.1)"
                )
                raise _RefusedError
        elif name == b"expect" and value.strip(b" \t").lower() == b"100-continue":
            self._expects = self._parser.get_http_version() != "1.0"
        elif name == b"connection":
            self._check_version()
            self._old = self._parser.get_http_version() == "1.0"

    def _check_version(self) -> None:
        """To be asked where it may be another one: HTTP/1.1 without a Connection header keeps its connection, no other does."""
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            self._refuse(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is")
            raise _RefusedError

    def on_headers_complete(self) -> None:
        self._state = self.BODY
        self._head_bytes = 0
        if self._hosts != 1 and self._parser.get_http_version() == "1.1":
            self._refuse(400, "exactly one Host header is required (RFC 9112 section 3.2)")
            raise _RefusedError
        if len(self._headers) + self._dropped > self.server.limits.header_count:
            self._refuse(431, f"more than {self.server.limits.header_count} headers")
            raise _RefusedError
        if self._expects:
            self._expects = False
            if not self._pending and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_chunk_header(self) -> None:
        # What is named behind the body is not part of the head (RFC 9110 §6.5.1).
        if not isinstance(self._headers, Sealed):
            self._headers = Sealed(self._headers)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.server.limits.body_bytes:
            self._refuse(413, f"the body has more than {self.server.limits.body_bytes} bytes")
            raise _RefusedError
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._body and self._parser.should_upgrade():
            return  # `_ignore_upgrade` follows
        keep_alive = self._parser.should_keep_alive()
        if not keep_alive:
            self._check_version()
        if self._held:
            self._release()
        body = self._body
        request = (OldRequest if self._old else Request)(
            self,
            self._parser.get_method(),
            self._target,
            self._host,
            self._headers,
            body[0] if len(body) == 1 else b"".join(body),
            keep_alive,
        )
        self._body = []
        request.whole = self._whole
        if self._old:
            self._old = False
            request.whole = b""  # what is to be answered in another way is of no shape
        if self._pending:
            # Pipelined behind an unanswered one: its turn comes in `answer`; no more is read until then.
            self._state = self.WORKING
            self._pending.append(request)
            self._pause_reading()
        else:
            self._hand_over(request)

    def _hand_over(self, request: Request) -> None:
        self._state = self.WORKING
        self._pending.append(request)
        self.server.application(request)
        if not request.answered:
            self._pause_reading()

    def seen(self, request: Request, event: Event) -> None:
        """The request held this one event: perhaps the next ones look the same. Looked at after 2, 4, 8 … that were new: where
        nothing can be learnt, trying costs nearly nothing."""
        self._misses = misses = self._misses + 1
        if misses & (misses - 1) or misses == 1:
            return
        if misses >= SHAPELESS and self._hits < misses:
            self._shapes = ()
            return
        shape = self.server.shapes.learn(request.whole, request.target, request.host, request.headers, event)
        if shape is not None and shape not in self._shapes:
            self._shapes = (shape, *self._shapes[: SHAPES_MAX - 1])

    # answers

    def answer(self, request: Request, status: int, lines: bytes, body: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if not body and request.keep_alive and not self.server.closing and len(self._pending) == 1:
            # The plain case, which is nearly every case: an accepted event.
            transport.write(_REASONS[status] + self.server.date + lines + b"content-length: 0\r\n\r\n")
            self._pending.clear()
            if self._state == self.WORKING:  # else the next one has begun to come
                self._state = self.IDLE
                self._since = self._loop.time()
            if self._read_paused:
                self._resume_reading()
            return
        closing = not request.keep_alive or self.server.closing
        transport.write(
            _REASONS[status]
            + self.server.date
            + lines
            + (b"connection: close\r\n" if closing else b"")
            + b"content-length: %d\r\n\r\n" % len(body)
            + (b"" if request.method == b"HEAD" else body)
        )
        self._pending.popleft()
        if closing:
            self._pending.clear()
            if self._refused:
                self._linger()
            else:
                self._refused = True
                transport.close()
            return
        if self._pending:
            following = self._pending[0]
            self._loop.call_soon(self._work, following)
        else:
            if self._state == self.WORKING:
                self._state = self.IDLE
                self._since = self._loop.time()
            if self._read_paused:
                self._resume_reading()

    def _work(self, request: Request) -> None:
        if self._transport is not None and self._pending and self._pending[0] is request:
            self.server.application(request)

    def _refuse(self, status: int, detail: str, lines: bytes = b"") -> None:
        """Answer what is not worth an application's time, and close: the rest of the stream cannot be trusted."""
        if self._refused or self._transport is None:
            return
        self._refused = True
        self._release()
        self._headers, self._body = [], []
        if self.server.refused is not None:
            self.server.refused(self.peer, self._host, self._target, status, detail)
        if self._pending:
            self._pending[-1].keep_alive = False  # what came whole before is answered first
            return
        body = problem(status, detail)
        self._transport.write(
            _REASONS[status]
            + self.server.date
            + lines
            + b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            + body
        )
        self._linger()

    def _linger(self) -> None:
        """Close, but not before the client has had the time to read what it was told."""
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        # else TLS, where the end of our side is the end of both: the client has been told the length and closes.
        self._state = self.LINGERING
        self._since = self._loop.time()
        if self._read_paused:
            self._read_paused = False
            transport.resume_reading()

    # bounds

    def check_time(self, now: float) -> None:
        limits = self.server.limits
        waited = now - self._since
        if self._state == self.IDLE and waited > limits.idle_s:
            self.abort()
        elif self._state == self.HEAD and waited > limits.head_s:
            self._refuse(408, f"the head of the request took more than {limits.head_s:g} s")
        elif self._state == self.BODY and waited > limits.body_s:
            self._refuse(408, f"the request took more than {limits.body_s:g} s")
        elif self._state == self.LINGERING and waited > LINGER_S:
            self.abort()

    def close_if_idle(self) -> None:
        if self._state in {self.IDLE, self.LINGERING} and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._read_paused and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and self._transport is not None and not self._refused and not self._write_paused:
            self._read_paused = False
            self._transport.resume_reading()


class _RefusedError(Exception):
    """Stops the parser after `_refuse`; never leaves `data_received`."""


def _in_blocks(pieces: list[bytes]) -> list[bytes]:
    """The same body, the run of small pieces at its end made into one."""
    at = len(pieces)
    while at and len(pieces[at - 1]) < PIECES_MAX:
        at -= 1
    return [*pieces[:at], b"".join(pieces[at:])]
