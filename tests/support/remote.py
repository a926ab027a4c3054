"""The other side of deliveries without sockets: what was sent is looked at, the answers are chosen, one by one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eventing.wire.client import Connection, Origin

__all__ = ["Remote", "Sent"]


@dataclass(eq=False, slots=True)
class Sent:
    """One request that waits for its answer."""

    connection: Connection
    path: str
    event_id: str
    host: str  # that it was sent to, whatever it says itself
    reused: bool  # the connection has carried an answer before: closed now, it counts as stale and not as an answer


class Remote:
    """Hosts that answer when they are told to. `connect` is a connector for `Connections`.

    `requested` is called for each request, `abandoned` where the client gives one up, `refused` with the host that was not there."""

    def __init__(
        self, requested: Callable[[Sent], None], abandoned: Callable[[Sent], None], refused: Callable[[str], None]
    ) -> None:
        self.outstanding: list[Sent] = []
        self._answered: set[Connection] = set()
        self.refusing: set[str] = set()  # hosts that nobody listens on
        self._requested = requested
        self._abandoned = abandoned
        self._refused = refused

    async def connect(self, origin: Origin, factory: Callable[[], Connection]) -> None:
        if origin.host in self.refusing:
            self._refused(origin.host)
            raise ConnectionRefusedError(f"nobody listens on {origin.host}")
        connection = factory()
        connection.connection_made(_Transport(self, connection))

    def arrived(self, connection: Connection, request: bytes) -> None:
        head = request.partition(b"\r\n\r\n")[0].decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        sent = Sent(connection, first.split()[1], headers["ce-id"], connection.pool.origin.host, connection in self._answered)
        self.outstanding.append(sent)
        self._requested(sent)

    def answer(self, sent: Sent, status: int, headers: str = "", body: bytes = b"") -> None:
        self.outstanding.remove(sent)
        self._answered.add(sent.connection)
        head = f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n"
        sent.connection.data_received(head.encode() + body)

    def cut(self, sent: Sent, after: bytes = b"") -> None:
        """The connection ends after so much of an answer."""
        self.outstanding.remove(sent)
        if after:
            sent.connection.data_received(after)
        sent.connection.connection_lost(None)

    def closed(self, connection: Connection) -> None:
        for sent in [sent for sent in self.outstanding if sent.connection is connection]:
            self.outstanding.remove(sent)
            self._abandoned(sent)
        asyncio.get_running_loop().call_soon(connection.connection_lost, None)


class _Transport(asyncio.Transport):
    def __init__(self, remote: Remote, connection: Connection) -> None:
        super().__init__()
        self._remote = remote
        self._connection = connection
        self._closed = False

    def write(self, data: Any) -> None:
        if not self._closed:
            self._remote.arrived(self._connection, bytes(data))

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._remote.closed(self._connection)
