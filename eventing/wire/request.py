"""What an application sees of the server: one request, the limits that it was read within, and how an error is written."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from eventing.bindings.http import Headers
from eventing.event import Event

if TYPE_CHECKING:
    from eventing.wire.server_connection import ServerConnection

__all__ = ["Application", "OldRequest", "Request", "ServerLimits", "problem"]

Application = Callable[["Request"], None]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one connection, the last two of all together; beyond them the answer is the status named."""

    body_bytes: int = 1 << 20  # 413
    header_bytes: int = 32 << 10  # 431, the request line included; up to two pieces more may pass. Trailers as well
    header_count: int = 100  # 431; Host and what else frames the message not counted
    head_s: float = 10.0  # from the first byte of a request to the end of its head: 408
    body_s: float = 60.0  # from there to the end of its body: 408
    idle_s: float = 75.0  # between requests: closed without a word
    connections: int = 10_000  # 503 and closed
    held_bytes: int = 64 << 20  # of requests that have not come whole: 503. One that comes in one piece is never among them


class Request:
    """One request. `target` is the raw request target, `host` the Host header; `headers` are (HeaderName, raw value) in
    order. `event` is there already where the request is of a shape seen before (eventing.bindings.shapes); otherwise an
    application that finds one event in the request says so by `seen`, so that the next ones may be."""

    __slots__ = ("_connection", "answered", "body", "event", "headers", "host", "keep_alive", "method", "target", "whole")

    def __init__(
        self,
        connection: "ServerConnection",
        method: bytes,
        target: bytes,
        host: bytes,
        headers: Headers,
        body: bytes,
        keep_alive: bool,
        event: Event | None = None,
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.host = host
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.event = event
        self.whole = b""  # all its bytes, where they came in one piece
        self.answered = False

    @property
    def peer(self) -> str:
        """`address:port` of the client."""
        return self._connection.peer

    @property
    def peer_bytes(self) -> bytes:
        return self._connection.peer_bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header of this lower-case name."""
        for header, value in self.headers:
            if header.lower == name:
                return value
        return None

    def seen(self, event: Event) -> None:
        """The request held this event and nothing else."""
        if self.whole and self.keep_alive:
            self._connection.seen(self, event)

    def respond(self, status: int, lines: bytes = b"", body: bytes = b"") -> None:
        """Answer. `lines` are complete header lines, each ended by CRLF; Content-Length is added here."""
        if self.answered:
            raise RuntimeError("a request is answered once")
        self.answered = True
        self._connection.answer(self, status, lines, body)


class OldRequest(Request):
    """A request by HTTP/1.0 with a Connection header: where it keeps its connection, it wants to be told so."""

    __slots__ = ()

    def respond(self, status: int, lines: bytes = b"", body: bytes = b"") -> None:
        if self.keep_alive and not self._connection.server.closing:
            lines += b"connection: keep-alive\r\n"
        super().respond(status, lines, body)


def problem(status: int, detail: str, **extensions: object) -> bytes:
    """A problem+json body (RFC 9457)."""
    import msgspec  # only on the way of an error

    return msgspec.json.encode(
        {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **extensions}
    )
