"""Where the interpreter's part of a delivery goes: the real ingress, channel, delivery and journal on transports without sockets.

`python -m tests.bench.stages` prints them alone. Times are the thread's own CPU time, so that neighbours disturb little.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import uvloop

from eventing.bindings.http import decode
from eventing.channels import Budget, ChannelHost
from eventing.event import Event
from eventing.observe.metrics import SubscriptionMetrics
from eventing.testing.channel_harness import subscription
from eventing.wire.client import Connection
from eventing.wire.server_connection import ServerConnection
from tests.bench.report import grid
from tests.support.data_plane import DataPlaneRig, subscriber

__all__ = ["Stage", "section", "stages"]

INTRODUCTION = """\
The interpreter's part of a delivery: the real ingress, channel, delivery and journal on transports without sockets. The rest of the
CPU in the tables above is the operating system's (one send and one receive per delivery, the same for the floor) and uvloop's.
Each figure is the lowest of many short rounds, in hot caches. Stages overlap, so their sum is not the whole. What was tried, what
it gave and what was left is in [decision 0003](decisions/0003-callbacks.md)."""

Stage = tuple[str, float]
"""What, and its µs per event or per delivery."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PRODUCERS = 32


class _Transport(asyncio.Transport):
    """Keeps what is written in a list that the bench reads; knows the subscriber's connection it belongs to."""

    def __init__(self, outbox: list["tuple[_Transport, Any]"]) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._outbox = outbox
        self.connection: Connection | None = None

    def write(self, data: Any) -> None:
        self._outbox.append((self, data))

    def writelines(self, list_of_data: Any) -> None:
        self._outbox.append((self, b"".join(list_of_data)))

    def abort(self) -> None:
        pass

    close = abort

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def can_write_eof(self) -> bool:
        return False


def _request(number: int, size: int, *more: str) -> bytes:
    head = (
        "POST /default/orders HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nCe-Specversion: 1.0\r\nCe-Type: com.example.order.placed\r\n"
        "Ce-Source: /shop/orders\r\nCe-Time: 2026-01-01T00:00:00Z\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n" + "".join(more) + f"Ce-Id: load-{number}\r\n\r\n"
    )
    return head.encode() + b'{"pad":"' + b"x" * (size - 10) + b'"}'


def _least(run: Callable[[], object], events: int, rounds: int) -> float:
    """µs per event of the best round."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.thread_time_ns()
        run()
        best = min(best, (time.thread_time_ns() - begin) / events / 1000)
    return best


def section(quick: bool) -> list[str]:
    """The stages as a section of docs/benchmarks.md."""
    found = uvloop.run(stages(512, quick=quick))
    for what, cost in found:
        print(f"{cost:6.2f} µs  {what}", flush=True)
    lines = ["## Where the time goes", "", INTRODUCTION, ""]
    return lines + grid(("stage, 0.5 KB", "µs"), [(what, f"{cost:.2f}") for what, cost in found])


async def stages(size: int, *, quick: bool = False) -> list[Stage]:
    """All of them, for events with `size` bytes of data."""
    rounds = 30 if quick else 400
    found: list[Stage] = []
    for fan_out in (1, 10, 100):
        found.append((f"everything, fan-out {fan_out}, per delivery", await _whole(fan_out, size, rounds)))
    found += await _parts(size, rounds)
    return found


async def _whole(fan_out: int, size: int, rounds: int) -> float:
    outbox: list[tuple[_Transport, Any]] = []

    async def connect(_origin: object, factory: Callable[[], Connection]) -> None:
        transport = _Transport(outbox)
        transport.connection = factory()
        transport.connection.connection_made(transport)

    async with DataPlaneRig(connector=connect) as rig:
        rig.channel("orders", *[subscriber(f"s{n}", f"http://127.0.0.1:1/s{n}", concurrency=32) for n in range(fan_out)])
        loop = asyncio.get_running_loop()
        producers = [ServerConnection(rig.server, loop) for _ in range(PRODUCERS)]
        for producer in producers:
            producer.connection_made(_Transport(outbox))
        window = 32 if fan_out == 1 else 25 if fan_out == 10 else 8
        numbers = iter(range(1, 1 << 40))

        def play(requests: list[bytes]) -> None:
            for producer, request in zip(producers, requests, strict=False):
                producer.data_received(request)
            while outbox:
                written = outbox[:]
                outbox.clear()
                for transport, _ in written:
                    if transport.connection is not None:
                        transport.connection.data_received(OK)

        for _ in range(20):  # connections are opened, shapes and answers learnt
            play([_request(next(numbers), size) for _ in range(window)])
            await asyncio.sleep(0)
        batch = [[_request(next(numbers), size) for _ in range(window)] for _ in range(max(1, 100 // fan_out))]

        def play_all() -> None:
            for requests in batch:
                play(requests)

        cost = _least(play_all, len(batch) * window * fan_out, rounds)
        if rig.table.pending:
            raise RuntimeError(f"{rig.table.pending} deliveries did not end")
        return cost


class _Sink:
    """A consumer that takes and settles at once."""

    def __init__(self) -> None:
        self.cursor: Any = None

    def wake(self) -> None:
        for lease in self.cursor.take(1):
            self.cursor.settle(lease)

    def lost(self, leases: Any) -> None: ...

    def evicted(self, lease: Any, reason: str) -> None: ...

    def arrived(self, event: Any, origin: str) -> None: ...


async def _parts(size: int, rounds: int) -> list[Stage]:
    count = 320
    async with DataPlaneRig() as rig:
        loop = asyncio.get_running_loop()
        outbox: list[tuple[_Transport, Any]] = []
        events: list[Event] = []
        headers: list[Any] = []

        def answer(request: Any) -> None:
            if not events:
                headers.append((request.headers, request.body))
            request.respond(202)

        def learn(request: Any) -> None:
            if request.event is None:
                (event,) = decode(request.headers, request.body)
                request.seen(event)
                events.append(event)
            request.respond(202)

        connection = ServerConnection(rig.server, loop)
        connection.connection_made(_Transport(outbox))
        plain = [_request(number, size) for number in range(count)]

        def receive(application: Callable[[Any], None]) -> Callable[[], None]:
            def run() -> None:
                rig.server.application = application
                for request in plain:
                    connection.data_received(request)
                outbox.clear()

            return run

        parsed = _least(receive(answer), count, rounds)
        read, body = headers[0]
        decoded = _least(lambda: [decode(read, body) for _ in range(count)], count, rounds)
        shaped = _least(receive(learn), count, rounds)
        (event,) = decode(read, body)
        journal = rig.journal
        place = journal.place("default/orders", (1,))
        metrics = SubscriptionMetrics("default", "orders", "s")

        def accept() -> None:
            for _ in range(count):
                journal.accepted(event, place, b"127.0.0.1:1")

        def attempt() -> None:
            for _ in range(count):
                journal.attempted(7, 1, 1, 100.0, 0.0005, 200, 1, 1)

        def count_up() -> None:
            for _ in range(count):
                metrics.attempted(200, 0.0005)

        accepted, attempted, counted = (_least(run, count, rounds) for run in (accept, attempt, count_up))
        metadata = {"metadata": {"name": "c", "namespace": "default", "uid": "c", "generation": 1}, "spec": {}}
        channel = rig.factory.open(metadata, ChannelHost(Budget(1 << 30), time.monotonic))
        sink = _Sink()
        sink.cursor = channel.attach(subscription("s"), sink)
        sink.cursor.wake()
        batch = [event]
        kept = _least(lambda: [channel.publish(batch) for _ in range(count)], count, rounds)
        await channel.aclose(0.0)
    return [
        ("request of a known shape: read, judged, answered; per event", shaped),
        ("request of no known shape: parsed and answered (without the next line)", parsed),
        ("… its event decoded and judged", decoded),
        ("channel: stored, taken, settled; one subscriber", kept),
        ("journal: an acceptance", accepted),
        ("journal: an attempt", attempted),
        ("metrics: an attempt", counted),
    ]


if __name__ == "__main__":
    section(quick=False)
