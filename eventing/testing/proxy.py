"""A TCP proxy that fails on demand: between mesh and subscriber, mesh and broker, kubectl and API server.

Works on plain bytes and on virtual time, needs no privileges; what `tc` and `iptables` do to packets it does to streams.
"""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self

__all__ = ["TcpProxy"]

TURNS: Final = 5  # of the loop: a connection that is being accepted comes to its end within them
_PIECE: Final = 64 << 10


class TcpProxy:
    """`async with TcpProxy("127.0.0.1", port) as proxy`: connect to `proxy.port` instead.

    With `port` it listens on that one, for targets that tell their clients where to find them; else wherever there is room.
    Passes everything on until told otherwise. `delay_s` holds back every piece in both directions and may be set at any time.
    `up_bytes` and `down_bytes` count what was passed on, towards the target and back.
    """

    def __init__(self, host: str, target: int, /, *, listen: str = "127.0.0.1", port: int = 0) -> None:
        self.target = (host, target)
        self.host = listen
        self.port = port
        self.delay_s = 0.0
        self.up_bytes = 0
        self.down_bytes = 0
        self.accepted = 0
        self._left: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._links)

    async def aclose(self) -> None:
        self._closed = True
        await self._stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    # what it does to the traffic

    async def resume(self) -> None:
        """Pass on again what is and comes: the end of `refuse`, `half_open`, `delay_s` and `cut_after`."""
        self.delay_s = 0.0
        self._left = None
        self._open.set()
        await self._listen()

    def cut(self) -> None:
        """Reset every connection there is, in both directions; new ones pass."""
        for link in list(self._links):
            link.reset()

    def cut_after(self, count: int) -> None:
        """Pass on so many bytes more, counted over all connections and both directions, then reset the connection on which
        the next one came. Once."""
        self._left = count

    def half_open(self) -> None:
        """Pass on nothing more and say nothing: connections stay open, new ones are accepted, all hang until `resume`."""
        self._open.clear()

    async def refuse(self) -> None:
        """Refuse new connections, as a port where nobody listens; those there are stay."""
        await self._stop_listening()

    # how

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, self.host, self.port, limit=_PIECE)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted in the moment of the end
            writer.transport.abort()
            return
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._link(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, writer))

    def _ended(self, task: "asyncio.Task[None]", near: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # perhaps before its first step, which would have cleaned up
            near.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._open.wait()
            far_reader, link.far = await asyncio.open_connection(*self.target, limit=_PIECE)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, reader, link.far, up=True))
                both.create_task(self._pump(link, far_reader, writer, up=False))
            await link.close()
        except* OSError:
            link.reset()  # one side is gone or was never there: the other hears of it
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(self, link: "_Link", source: asyncio.StreamReader, drain: asyncio.StreamWriter, *, up: bool) -> None:
        while piece := await source.read(_PIECE):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._open.wait()
            cut = self._left is not None and len(piece) > self._left
            if self._left is not None:
                piece = piece[: self._left]
                self._left = None if cut else self._left - len(piece)
            drain.write(piece)
            await drain.drain()
            if up:
                self.up_bytes += len(piece)
            else:
                self.down_bytes += len(piece)
            if cut:
                link.reset()
                return
        await self._open.wait()
        if drain.can_write_eof() and not drain.transport.is_closing():
            drain.write_eof()


class _Link:
    """One connection through the proxy: its near side, and its far side once there is one."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None

    def _sides(self) -> list[asyncio.StreamWriter]:
        return [side for side in (self.near, self.far) if side is not None]

    async def close(self) -> None:
        for side in self._sides():
            side.close()
        for side in self._sides():
            with contextlib.suppress(OSError):
                await side.wait_closed()

    def abort(self) -> None:
        for side in self._sides():
            side.transport.abort()

    def reset(self) -> None:
        """RST instead of FIN, to both sides."""
        for side in self._sides():
            raw: socket.socket | None = side.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()
