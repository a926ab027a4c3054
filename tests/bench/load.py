"""The load generator: POSTs CloudEvents in binary mode over keep-alive connections, without pipelining.

Closed loop (default): at most `--window` events are on their way at once, counted until their *last delivery*: the sink
rings a doorbell, the board says how many deliveries there were. Nothing can pile up unseen between the two. With `--fan-out 0`
nothing is to be delivered, and an event is on its way until its answer.
Open loop (`--rate`): events are due at a fixed rate whatever happens; each carries the moment at which it became due, so
that an event that had to wait for a free connection is charged with the wait.

Prints `ready` when connected. On SIGTERM it stops, waits for what is on its way and prints one line of JSON.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import time
from collections import Counter, deque
from pathlib import Path
from typing import cast

import uvloop

from tests.bench.board import ACCEPTED, DELIVERED, open_board

TICK_S = 0.001


class Load:
    def __init__(self, options: argparse.Namespace) -> None:
        self.fan_out: int = options.fan_out
        self.window: int = options.window
        self.rate: int = options.rate
        self.board = open_board(options.board)
        self.base = self.board[DELIVERED]
        self.idle: list[Producer] = []
        self.due: deque[int] = deque()
        self.statuses: Counter[int] = Counter()
        self.sent = 0
        self.refused = 0
        self.news = asyncio.Event()
        self.running = False
        self.late_ns = 0
        # The head is the same for all systems under test, header by header; ids are unique, as in real life.
        target = f"POST {options.path} HTTP/1.1\r\nHost: 127.0.0.1:{options.port}\r\n"
        self.head = (target + "Ce-Specversion: 1.0\r\nCe-Type: com.example.order.placed\r\nCe-Source: /shop/orders\r\n"
                     "Ce-Time: 2026-01-01T00:00:00Z\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {options.size}\r\nCe-Id: ").encode()  # fmt: skip
        self.pad = b'","pad":"' + b"x" * (options.size - 38) + b'"}'
        self.structured = options.structured
        if self.structured:
            # The same event in structured mode. What the sink reads, the moment at which it became due, stands first.
            self.head = (target + "Content-Type: application/cloudevents+json\r\nContent-Length: ").encode()
            self.pad = (b'","specversion":"1.0","type":"com.example.order.placed","source":"/shop/orders","time":"2026-01-01T00:00:00Z",'
                        b'"datacontenttype":"application/json","data":{"pad":"' + b"x" * (options.size - 11) + b'"},"id":"load-')  # fmt: skip

    def send(self, producer: "Producer", stamp: int) -> None:
        self.sent += 1
        if self.structured:
            body = b'{"at":"%020d%b%d"}' % (stamp, self.pad, self.sent)
            producer.transport.write(b"%b%d\r\n\r\n%b" % (self.head, len(body), body))
            return
        producer.transport.write(b'%bload-%d\r\n\r\n{"at":"%020d%b' % (self.head, self.sent, stamp, self.pad))

    def on_their_way(self) -> int:
        """Events sent, not refused, whose last delivery has not been seen; where there is none, whose answer has not."""
        if not self.fan_out:
            return self.sent - self.statuses.total()
        return self.sent - self.refused - (self.board[DELIVERED] - self.base) // self.fan_out

    def pump(self) -> None:
        """Something changed: send what may be sent now."""
        self.news.set()
        if self.rate:
            while self.due and self.idle:
                self.send(self.idle.pop(), self.due.popleft())
        elif self.running:
            room = self.window - self.on_their_way()
            while room > 0 and self.idle:
                self.send(self.idle.pop(), time.monotonic_ns())
                room -= 1

    async def clock(self) -> None:
        """Open loop: what became due since the last tick is due now."""
        begin = last = time.monotonic_ns()
        made = 0
        while self.running:
            await asyncio.sleep(TICK_S)
            now = time.monotonic_ns()
            self.late_ns = max(self.late_ns, now - last - int(TICK_S * 1e9))
            last = now
            wanted = (now - begin) * self.rate // 1_000_000_000
            self.due.extend([now] * (wanted - made))
            made = wanted
            self.pump()


class Producer(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.load.idle.append(self)

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or not (data.startswith(b"202", 9) or self._whole(data, head_end)):
            self.rest = data  # a 202 has no body; a refusal may have one
            return
        self.rest = b""
        load = self.load
        load.statuses[int(data[9:12])] += 1
        if data[9:12] == b"202":
            load.board[ACCEPTED] += 1
        else:
            load.refused += 1
        load.idle.append(self)
        load.pump()

    @staticmethod
    def _whole(data: bytes, head_end: int) -> bool:
        head = data[:head_end].lower()
        at = head.find(b"content-length: ")
        return at < 0 or len(data) >= head_end + 4 + int(head[at + 16 :].partition(b"\r")[0])

    def connection_lost(self, exc: Exception | None) -> None:
        if self.load.running:
            self.load.statuses[0] += 1  # 0: closed under a request or not, either way a fault of the tested
            if self in self.load.idle:
                self.load.idle.remove(self)


async def generate(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    load = Load(options)
    doorbell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    doorbell.bind(str(options.doorbell))
    doorbell.setblocking(False)

    def rung() -> None:
        try:
            while True:
                doorbell.recv(16)
        except BlockingIOError:
            load.pump()

    loop.add_reader(doorbell.fileno(), rung)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for _ in range(options.connections):
        await loop.create_connection(lambda: Producer(load), "127.0.0.1", options.port)
    load.running = True
    print("ready", flush=True)
    if options.rate:
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(load.clock())
            await stop.wait()
            load.running = False
            await clock
    else:
        load.pump()
        await stop.wait()
        load.running = False
    with contextlib.suppress(TimeoutError):  # what is still missing then is in the result
        async with asyncio.timeout(options.drain):
            while load.due or load.on_their_way() > 0 or load.sent > load.statuses.total():
                load.news.clear()
                await load.news.wait()
    result = {
        "sent": load.sent,
        "accepted": load.statuses[202],
        "unfinished": load.on_their_way(),
        "statuses": dict(load.statuses),
        "late_ms": load.late_ns / 1e6,
    }
    print(json.dumps(result), flush=True)
    options.doorbell.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The load generator of the benchmarks.")
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--doorbell", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/")
    parser.add_argument("--fan-out", type=int, default=1)
    parser.add_argument("--size", type=int, default=512, help="bytes of the event's data, at least 64")
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=int, default=0, help="events per second; 0: closed loop")
    parser.add_argument("--structured", action="store_true", help="events in structured mode")
    parser.add_argument("--drain", type=float, default=15.0, help="seconds to wait at the end for what is on its way")
    uvloop.run(generate(parser.parse_args()))
