"""The sink of the benchmarks: answers 200 without a body, counts per path, records how long events were on their way.

Lean on purpose: it shares the cores with what is measured. It reads POSTs with a Content-Length by scanning bytes, which
only a sink that knows its two clients may do. `GET /` answers the counts and latencies since the last `GET /`, as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

from tests.bench.board import DELIVERED, RECORDING, open_board

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FIVE = (b"HTTP/1.1 200 OK\r\nServer: nginx/1.27\r\nContent-Type: text/plain\r\nVary: Accept-Encoding\r\nX-Request-Id: %d\r\n"
        b"Content-Length: 0\r\n\r\n")  # fmt: skip
REPLY = (b"HTTP/1.1 200 OK\r\nCe-Specversion: 1.0\r\nCe-Type: com.example.order.confirmed\r\nCe-Source: /confirmer\r\nCe-Id: %d\r\n"
         b"Content-Type: application/json\r\nContent-Length: 60\r\n\r\n" + b'{"pad":"' + b"x" * 50 + b'"}')  # fmt: skip
# What is answered to deliveries, by the first letters of their path; the number is of the answer.
ANSWERS = {b"/headers": FIVE % 7, b"/unique-": FIVE, b"/replies": REPLY}
STUCK = b"/stuck H"  # a subscriber that takes what it gets, and never answers
TAKEN = b"/taken H"  # where replies go: they are no deliveries


class Sink:
    """Counts, and tells the load generator once per turn of the loop that there is something new on the board."""

    def __init__(self, board: memoryview, doorbell: str) -> None:
        self.board = board
        self.doorbell = doorbell
        self.counts: Counter[bytes] = Counter()
        self.latencies = array("q")
        self.delivered = 0
        self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bell.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._due = False

    def news(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._due = False
        self.board[DELIVERED] = self.delivered
        # Nobody is generating load now, or it has enough news to read already:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            self._bell.sendto(b".", self.doorbell)

    def report(self) -> bytes:
        latencies = sorted(self.latencies)
        found = {
            "counts": {path.decode(): count for path, count in self.counts.items()},
            "samples": len(latencies),
            "p50_ms": latencies[len(latencies) // 2] / 1e6 if latencies else None,
            "p99_ms": latencies[len(latencies) * 99 // 100] / 1e6 if latencies else None,
            "max_ms": latencies[-1] / 1e6 if latencies else None,
        }
        self.counts.clear()
        self.latencies = array("q")
        body = json.dumps(found).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Receiver(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
            self.rest = b""
        sink = self.sink
        start = answers = 0
        while start < len(data):
            head_end = data.find(b"\r\n\r\n", start)
            if head_end < 0:
                break
            if data.startswith(b"GET ", start):
                self.transport.write(sink.report())
                start = head_end + 4
                continue
            at = data.find(b"content-length: ", start, head_end)
            if at < 0:
                at = start + data[start:head_end].lower().index(b"content-length: ")
            body = head_end + 4
            end = body + int(data[at + 16 : data.find(b"\r", at)])
            if end > len(data):
                break
            kind = data[start + 5 : start + 13]
            if kind == TAKEN:
                self.transport.write(OK)
                start = end
                continue
            if kind == STUCK:
                start = end
                continue
            sink.counts[data[start + 5 : data.find(b" ", start + 5)]] += 1
            if sink.board[RECORDING]:
                sink.latencies.append(time.monotonic_ns() - int(data[body + 7 : body + 27]))
            answers += 1
            start = end
            if kind in ANSWERS:
                answer = ANSWERS[kind]
                self.transport.write(answer % (sink.delivered + answers) if b"%d" in answer else answer)
        self.rest = data[start:]
        if answers:
            if kind not in ANSWERS:
                self.transport.write(OK * answers)
            sink.delivered += answers
            sink.news()


async def serve(options: argparse.Namespace) -> None:
    sink = Sink(open_board(options.board), str(options.doorbell))
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(sink), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The sink of the benchmarks; prints its port.")
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--doorbell", type=Path, required=True, help="unix datagram socket of the load generator")
    uvloop.run(serve(parser.parse_args()))
