"""Several servers that accept from one socket: each gets its share, and none is waited for in vain."""

import asyncio
import errno
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from eventing.wire import shared_listener
from eventing.wire.server import HttpServer, Request
from eventing.wire.shared_listener import Loads

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


class Shared:
    """A socket and what its servers tell each other; in one loop here, which makes no difference to them."""

    def __init__(self, stack: AsyncExitStack, processes: int) -> None:
        self._stack = stack
        self._processes = processes
        self._file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack is one
        self._file.truncate(Loads.size_of(processes))
        self._socket = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address: tuple[str, int] = self._socket.getsockname()

    def loads(self, own: int) -> Loads:
        return Loads(self._file.fileno(), self._processes, own)

    def duplicate(self) -> socket.socket:
        """As a process inherits it."""
        return self._socket.dup()

    async def server(self, own: int) -> HttpServer:
        server = HttpServer(lambda request: _answer(request, own))
        await server.start(self.duplicate(), loads=self.loads(own))
        self._stack.push_async_callback(server.aclose)
        return server

    async def connect(self, count: int, *, at_once: bool = False) -> list[int]:
        """Open so many connections, and ask on each who has it."""
        opened = [self._open() for _ in range(count)]
        streams = await asyncio.gather(*opened) if at_once else [await each for each in opened]
        return [await _owner(*each) for each in streams]

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self._stack.push_async_callback(_closed, writer)
        return reader, writer


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def _answer(request: Request, own: int) -> None:
    request.respond(200, b"x-owner: %d\r\n" % own)


async def _owner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(REQUEST)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    return int(head.partition(b"x-owner: ")[2].partition(b"\r\n")[0])


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("at_once", [False, True])
async def test_each_gets_its_share(stack: AsyncExitStack, at_once: bool) -> None:
    shared = Shared(stack, 3)
    servers = [await shared.server(own) for own in range(3)]
    owners = await shared.connect(30, at_once=at_once)
    shares = [owners.count(own) for own in range(3)]
    assert [len(server.connections) for server in servers] == shares
    assert min(shares) >= 8, shares


async def test_one_that_comes_later_catches_up(stack: AsyncExitStack) -> None:
    shared = Shared(stack, 2)
    await shared.server(0)
    assert await shared.connect(8) == [0] * 8
    await shared.server(1)
    owners = await shared.connect(8)
    assert owners.count(1) >= 6, owners  # the other one waits for a millisecond, which may pass on a busy machine


async def test_connections_that_end_count_no_more(stack: AsyncExitStack) -> None:
    shared = Shared(stack, 2)
    first, second = await shared.server(0), await shared.server(1)
    await shared.connect(8)
    for connection in list(first.connections):
        connection.abort()
    async with asyncio.timeout(10):
        while first.connections:
            await asyncio.sleep(0.001)
    # It learns that the other has none when the next connection comes, which it may still take.
    assert (await shared.connect(4)).count(0) >= 3
    assert len(second.connections) <= 5


async def test_one_that_takes_none_is_not_waited_for(stack: AsyncExitStack) -> None:
    shared = Shared(stack, 3)
    await shared.server(0)
    await shared.server(1)
    shared.loads(2)  # stopped, or dead: it has the fewest, and takes none
    owners = await shared.connect(100, at_once=True)
    assert owners.count(0) + owners.count(1) == 100
    assert 35 <= owners.count(0) <= 65


async def test_what_waits_at_the_end_is_taken(stack: AsyncExitStack) -> None:
    shared = Shared(stack, 2)
    server = await shared.server(0)
    shared.loads(1)
    streams = [await asyncio.open_connection(*shared.address) for _ in range(20)]
    await server.stop_accepting()
    assert server.accepted_total == 20
    for reader, writer in streams:
        assert await reader.read() == b"", "idle, so closed without a word"
        await _closed(writer)


class Starving(socket.socket):
    """A listening socket of a process that may open no more files, until it is told otherwise."""

    starving = True

    def accept(self) -> tuple[socket.socket, Any]:
        if self.starving:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def test_where_none_can_be_accepted_it_is_said_once_and_tried_again(
    stack: AsyncExitStack, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_listener, "STARVED_S", 0.01)
    shared = Shared(stack, 2)
    starving = Starving(fileno=shared.duplicate().detach())
    server = HttpServer(lambda request: _answer(request, 0))
    await server.start(starving, loads=shared.loads(0))
    stack.push_async_callback(server.aclose)
    connecting = asyncio.create_task(shared.connect(3))
    async with asyncio.timeout(10):
        while not caplog.records:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records] == ["no connection can be accepted for now"]
    starving.starving = False
    assert await connecting == [0, 0, 0]


async def test_an_accepted_socket_sends_small_answers_at_once(stack: AsyncExitStack) -> None:
    shared = Shared(stack, 2)
    server = await shared.server(0)
    await shared.connect(1)
    (connection,) = server.connections
    assert connection._transport is not None
    accepted = connection._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
