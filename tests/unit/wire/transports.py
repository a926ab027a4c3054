"""A transport without a socket: what is written is kept, what it was told is noted."""

import asyncio
import re
from typing import Any

from eventing.wire.server import HttpServer, ServerLimits
from eventing.wire.server_connection import ServerConnection

__all__ = ["FakeTransport", "Peer", "answers_of"]


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4242)})
        self.written = b""
        self.closed = False
        self.aborted = False
        self.eof = False
        self.reading = True

    def write(self, data: Any) -> None:
        assert not self.closed, "written after the close"
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Peer:
    """The other side of one server connection. The application answers 202 at once, with what it saw in `requests`. With the
    `server` of another peer it is another connection to that, whose requests the other one sees."""

    def __init__(self, limits: ServerLimits | None = None, *, answer: bool = True, server: HttpServer | None = None) -> None:
        self.requests: list[Any] = []
        self.refusals: list[tuple[int, str]] = []
        self.answering = answer
        self.server = server or HttpServer(
            self._application,
            limits=limits or ServerLimits(),
            refused=lambda _peer, _host, _target, status, detail: self.refusals.append((status, detail)),
        )
        self.transport = FakeTransport()
        self.connection = ServerConnection(self.server, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)

    def _application(self, request: Any) -> None:
        self.requests.append(request)
        if self.answering:
            request.respond(202)

    def send(self, *pieces: bytes) -> "Peer":
        for piece in pieces:
            if not self.transport.closed:
                self.connection.data_received(piece)
        return self

    @property
    def statuses(self) -> list[int]:
        return [status for status, _ in answers_of(self.transport.written)]

    @property
    def seen(self) -> list[tuple[bytes, bytes, bytes]]:
        """Method, target and body of each request."""
        return [(request.method, request.target, request.body) for request in self.requests]


def answers_of(stream: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer in a stream; fails where it is anything else."""
    found = []
    while stream:
        head, _, stream = stream.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+", head)
        assert match, head
        length = re.search(rb"(?im)^content-length: (\d+)\r?$", head)
        size = int(length[1]) if length else 0
        found.append((int(match[1]), stream[:size]))
        stream = stream[size:]
    return found
