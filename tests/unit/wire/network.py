"""A pool over connections without sockets, and who asks it for one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from eventing.bindings.http import HeaderName, HeaderNames
from eventing.wire.client import ClientLimits, Connection, Origin, ResponseFailure
from eventing.wire.pool import Pool
from tests.unit.wire.transports import FakeTransport

__all__ = ["OK", "REQUEST", "Asker", "Network", "wire"]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\n", b"content-length: 1\r\n\r\n", b"x"


class Asker:
    """Waits at a pool, sends one request, and notes what became of it."""

    def __init__(self, name: str = "", *, under_way: int = 0, starving: bool = False, patience_s: float = 1e9) -> None:
        self.name = name
        self.under_way = under_way
        self._starving = starving
        self._patience_s = patience_s
        self.got: Connection | None = None
        self.answers: list[tuple[int, list[tuple[bytes, bytes]], bytes]] = []
        self.failures: list[ResponseFailure] = []

    def starving(self, now: float) -> bool:
        return self._starving

    def overdue(self, now: float) -> bool:
        return now > self._patience_s

    def connected(self, connection: Connection) -> None:
        self.got = connection

    def unconnected(self, failure: ResponseFailure) -> None:
        self.failures.append(failure)

    def responded(self, connection: Connection, status: int, headers: list[tuple[HeaderName, bytes]], body: bytes) -> None:
        self.answers.append((status, [(name.lower, value) for name, value in headers], body))
        connection.pool.put(connection)

    def failed(self, connection: Connection, failure: ResponseFailure) -> None:
        self.failures.append(failure)


class Network:
    """Opens connections on fake transports when the test says so; `fail` makes the next attempts fail."""

    def __init__(self, *, limit: int = 3, automatic: bool = True, limits: ClientLimits | None = None) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.opened: list[Connection] = []
        self.gate = asyncio.Event()
        self.fail: Exception | None = None
        if automatic:
            self.gate.set()
        self.pool = Pool(
            Origin("http", "x", 80), self._connect, self._spawn, names=HeaderNames(), limit=limit, limits=limits, connect_s=5
        )

    async def _connect(self, _origin: Origin, factory: Callable[[], Connection]) -> None:
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        connection = factory()
        connection.connection_made(FakeTransport())
        self.opened.append(connection)

    def _spawn(self, coroutine: Awaitable[None]) -> object:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def wire(connection: Connection) -> FakeTransport:
    transport: Any = connection.transport
    assert isinstance(transport, FakeTransport)
    return transport
