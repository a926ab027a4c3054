"""The server's connections: uvicorn's, with bounds that uvicorn leaves open."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ABORT", "Connection"]

ABORT: Final = "eventing.abort"
"""Key of an ASGI extension: a function that ends the connection at once, whatever is still to be sent."""

_HEAD_LIMIT: Final = 64 * 1024
_WRITE_BUFFER: Final = 32 * 1024  # for each client that reads slowly; over TLS it would be 512 KiB


class Connection(HttpToolsProtocol):
    """Ends a connection whose request line and headers do not end within 64 KiB."""

    _in_head = False
    _head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's own
        super().connection_made(transport)
        transport.set_write_buffer_limits(_WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _HEAD_LIMIT:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
