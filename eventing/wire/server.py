"""HTTP/1.1 server: one protocol object per connection, one plain object per request, answers in order.

The application is a callable that takes a `Request` and answers it by `request.respond(…)`, now or later, exactly once.
Everything a peer can send is bounded by `ServerLimits`; what breaks HTTP is answered 400 and the connection closed.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, cast

from eventing.bindings.http import HeaderNames
from eventing.bindings.shapes import Shapes
from eventing.wire.request import Application, Request, ServerLimits
from eventing.wire.server_connection import ServerConnection
from eventing.wire.shared_listener import Loads, SharedListener

__all__ = ["HttpServer", "Request", "ServerLimits"]

# 1,024 and not asyncio's 100: a burst of 256 connects overflowed 128 (reference, "Several processes on one port").
BACKLOG: Final = 1024
SWEEP_S: Final = 1.0


class HttpServer:
    """Serves `application` on listening sockets until closed.

    `methods` are those that the application serves, as the header Allow has them. `refused` is told of each request that the
    application never sees: peer, Host header, target, status, detail.

    `start` begins to accept; `stop_accepting` closes the listeners after taking what waits in their backlog; `aclose` waits
    for requests under way until the deadline, then drops what is left.
    """

    def __init__(
        self,
        application: Application,
        *,
        limits: ServerLimits | None = None,
        names: HeaderNames | None = None,
        methods: str = "POST, OPTIONS",
        refused: Callable[[str, bytes, bytes, int, str], None] | None = None,
    ) -> None:
        self.application = application
        self.limits = limits or ServerLimits()
        self.names = names if names is not None else HeaderNames()
        self.shapes = Shapes(self.names)
        self.refused = refused
        self.methods = methods
        self.allow = f"allow: {methods}\r\n".encode()
        self.hint = "; without TLS"
        self.connections: set[ServerConnection] = set()
        self.closing = False
        self.accepted_total = 0
        self.held_bytes = 0  # of requests that have not come whole, over all connections
        self.date = b""
        self._servers: list[asyncio.Server] = []
        self._shared: list[SharedListener] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None, *, loads: Loads | None = None) -> None:
        """`loads`, where other processes accept from the same socket: how many connections each has."""
        loop = asyncio.get_running_loop()
        if tls is not None:
            self.hint = ""
        protocol = cast("Callable[[], asyncio.Protocol]", lambda: ServerConnection(self, loop))
        # A handshake is the head of the heads: who does not come to its end in time is gone.
        handshake_s = self.limits.head_s if tls else None
        if loads is None:
            server = await loop.create_server(protocol, sock=sock, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=handshake_s)
            self._servers.append(server)
        else:
            sock.listen(BACKLOG)
            listener = SharedListener(
                sock,
                loads,
                connect=lambda accepted: loop.connect_accepted_socket(
                    protocol, accepted, ssl=tls, ssl_handshake_timeout=handshake_s
                ),
                count=lambda: len(self.connections),
            )
            self._shared.append(listener)
        if self._sweep is None:
            self._swept(loop)

    def _swept(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: the Date header, and the time limits of every connection."""
        self.date = b"date: " + formatdate(time.time(), usegmt=True).encode() + b"\r\n"
        self.shapes.allow()
        now = loop.time()
        for connection in list(self.connections):
            connection.check_time(now)
        self._sweep = loop.call_later(SWEEP_S, self._swept, loop)

    async def stop_accepting(self) -> None:
        """Close the listeners. One turn of the loop first takes the connections that already wait."""
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for listener in self._shared:
            await listener.aclose()
        self._shared.clear()
        self.closing = True
        for connection in list(self.connections):
            connection.close_if_idle()

    async def aclose(self, deadline_s: float = 0.0) -> None:
        """Wait up to `deadline_s` seconds for answers under way, then close every connection."""
        if not self.closing:
            await self.stop_accepting()
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        while self.connections and loop.time() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for server in self._servers:
            # 3.12+ waits here for every connection; those that were aborted above are gone after a turn of the loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await server.wait_closed()
