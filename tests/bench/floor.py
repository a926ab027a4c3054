"""The floor: what a bare forwarder costs. Its work is FIXED; change it and every published ratio loses its meaning.

The floor receives a POST with httptools and header callbacks; lower-cases each header name and keeps the `ce-` ones and the
content type; joins them, the length and the body once; forwards the result to each of N targets (fan-out N) over one pool of
32 keep-alive connections, queueing without bound where all are busy; answers 202 with an empty body at once; reads answers
with httptools and looks at nothing in them. It does not validate, route, retry, time out, count, record or refuse anything.

`--lean` is the leaner floor reported beside it: no header callbacks at all, the bytes go on as they came but for the request
line. `--burn-us X` wastes X µs per delivery: a known slowness with which the harness proves that it measures.
"""

import argparse
import asyncio
import time
from collections import deque
from typing import cast

import httptools
import uvloop

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
POOL = 32


class Pool:
    """The connections to the sink, and what waits for one."""

    def __init__(self, paths: list[bytes], authority: bytes, burn_ns: int) -> None:
        self.prefixes = [b"POST " + path + b" HTTP/1.1\r\nhost: " + authority + b"\r\n" for path in paths]
        self.request_lines = [b"POST " + path + b" HTTP/1.1" for path in paths]
        self.idle: list[Outbound] = []
        self.waiting: deque[bytes] = deque()
        self.burn_ns = burn_ns

    def forward(self, request: bytes) -> None:
        if self.burn_ns:
            until = time.perf_counter_ns() + self.burn_ns
            while time.perf_counter_ns() < until:
                pass
        if self.idle:
            self.idle.pop().transport.write(request)
        else:
            self.waiting.append(request)


class Outbound(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.pool.idle.append(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self.pool.waiting:
            self.transport.write(self.pool.waiting.popleft())
        else:
            self.pool.idle.append(self)


class Inbound(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.parser = httptools.HttpRequestParser(self)
        self.head: list[bytes] = []
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.head = []
        self.body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name.startswith(b"ce-") or name == b"content-type":
            self.head += (name, b": ", value, b"\r\n")

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.body)
        event = b"".join((*self.head, b"content-length: %d\r\n\r\n" % len(body), body))
        for prefix in self.pool.prefixes:
            self.pool.forward(prefix + event)
        self.transport.write(ACCEPTED)


class LeanInbound(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.parser = httptools.HttpRequestParser(self)
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:  # the load generator does not pipeline
        event = self.received[self.received.index(b"\r\n") :]
        self.received = b""
        for line in self.pool.request_lines:
            self.pool.forward(line + event)
        self.transport.write(ACCEPTED)


async def serve(options: argparse.Namespace) -> None:
    paths = [b"/%s%d" % (options.path.encode(), number) for number in range(options.fan_out)]
    pool = Pool(paths, b"127.0.0.1:%d" % options.sink, int(options.burn_us * 1000))
    loop = asyncio.get_running_loop()
    for _ in range(POOL):
        await loop.create_connection(lambda: Outbound(pool), "127.0.0.1", options.sink)
    inbound = LeanInbound if options.lean else Inbound
    server = await loop.create_server(lambda: inbound(pool), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The floor of the benchmarks; prints its port.")
    parser.add_argument("--sink", type=int, required=True, help="port of the sink")
    parser.add_argument("--path", default="s", help="targets are /PATH0 … /PATHn")
    parser.add_argument("--fan-out", type=int, default=1)
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--burn-us", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args()))
