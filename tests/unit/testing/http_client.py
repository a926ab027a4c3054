"""A client of few words: sends bytes and looks at the bytes that come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

EVENT = b"POST %b HTTP/1.1\r\nHost: sink\r\nce-id: %b\r\nCe-Type: t\r\ncontent-length: 2\r\n\r\n{}"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def sent(port: int, request: bytes) -> AsyncIterator[Streams]:
    """A connection on which the request went out; gone at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)  # the transport sees its end


async def post(port: int, path: str = "/", event_id: str = "1") -> int:
    """The status of the answer to an event; 0 where the connection ended before there was one."""
    async with sent(port, EVENT % (path.encode(), event_id.encode())) as (reader, _):
        try:
            line = await reader.readline()
        except ConnectionError:
            return 0
        return int(line.split()[1]) if line.endswith(b"\r\n") else 0


async def until_reset(reader: asyncio.StreamReader) -> bytes:
    """What came before the connection was reset. Fails where it ended in good order."""
    got = b""
    try:
        while piece := await asyncio.wait_for(reader.read(100), 5):
            got += piece
    except ConnectionResetError:
        return got
    raise AssertionError(f"the connection ended in good order, after {got!r}")
