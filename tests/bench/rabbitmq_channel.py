"""What the RabbitMQ channel costs beside a bare pair of aio-pika clients (`bare_rabbitmq.py`), on the same broker.

A section of `make bench`; alone: `python -m tests.bench.rabbitmq_channel`. Needs a RabbitMQ, as the tests do.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from pamqp import commands  # noqa: E402

from eventing.errors import EventingError  # noqa: E402
from eventing_rabbitmq.confirming import Confirming  # noqa: E402
from eventing_rabbitmq.connection import Connection, connect  # noqa: E402
from eventing_rabbitmq.frames import content_header  # noqa: E402
from eventing_rabbitmq.settings import RabbitmqSettings  # noqa: E402
from eventing_rabbitmq.url import read_url  # noqa: E402
from tests.bench.beside import Compared, said  # noqa: E402
from tests.bench.configuring import ConfiguredMesh, Entrance  # noqa: E402
from tests.bench.report import grid  # noqa: E402
from tests.bench.rounds import Rig, Throughput, throughputs  # noqa: E402
from tests.bench.systems import Case, System, python, read_port  # noqa: E402
from tests.support.rabbitmq.back_end import RABBITMQ, versions  # noqa: E402
from tests.support.rabbitmq.broker import RabbitmqBroker  # noqa: E402
from tests.support.reaper import Reaper  # noqa: E402

__all__ = ["section"]

IN_FLIGHT: Final = 32
SIZE: Final = 512
GOAL: Final = 0.5
KINDS: Final = ("quorum", "classic")
STOCK_RATE: Final = 16_000  # events per second that nobody here delivers: so many are in stock for each second measured
TITLE: Final = "## Through RabbitMQ"
_PATIENCE_S: Final = 120.0
_AT_A_TIME: Final = 2_000


def section(quick: bool) -> list[str]:
    """The part of docs/benchmarks.md."""
    back_end = next(iter(versions().values()), None)
    if back_end is None:
        return said(TITLE, "", f"Left out, since there was no RabbitMQ: {RABBITMQ.remedy}.")
    with ExitStack() as stack:
        reaper = Reaper()
        stack.callback(reaper.close)
        broker = RabbitmqBroker(back_end, reaper)
        stack.callback(broker.remove)
        broker.start()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventing-bench-")))
        rig = Rig(directory)
        stack.callback(rig.close)
        return RabbitmqBench(rig, directory / "mesh", broker.url, quick).lines(f"{broker.version} {back_end}")


class RabbitmqBench:
    """All that is measured on one broker."""

    def __init__(self, rig: Rig, directory: Path, url: str, quick: bool) -> None:
        self._rig = rig
        self._directory = directory
        self._url = url
        self._rounds = 1 if quick else 5
        self._seconds = 0.8 if quick else 2.0
        self._warm_up_s = 0.3 if quick else 1.0
        self._stock = int(STOCK_RATE * (self._seconds + self._warm_up_s + 0.5))

    def lines(self, where: str) -> list[str]:
        rows = []
        for kind in KINDS:
            with self._mesh() as mesh:
                self._apply(mesh, _channel(f"publish-{kind}", kind) + _channel(f"stock-{kind}", kind))
                self._apply(mesh, self._subscription(f"stock-{kind}"))
                queue = self._queue(mesh, f"stock-{kind}")
                published = self.publish(mesh, kind)
            said(" | ".join(published.row(f"publish, {kind}")))
            delivered = self.deliver(kind, queue)
            said(" | ".join(delivered.row(f"deliver, {kind}")))
            rows += [
                published.row(f"publish, {kind} (goal: at least {GOAL:.0%} of its rate)"),
                delivered.row(f"consume and deliver, {kind}, {IN_FLIGHT} in flight (goal: {GOAL:.0%})"),
            ]
        headings = ("what", "bare, events/s", "mesh, events/s", "mesh to bare", "bare, CPU µs", "mesh, CPU µs")
        return said(
            TITLE,
            "",
            f"Beside a bare pair of aio-pika clients (`tests/bench/bare_rabbitmq.py`), on the same broker ({where}, one node, no TLS)",
            f"with as many requests in flight; events of {SIZE} bytes in binary mode, persistent and confirmed on both sides, one queue",
            "each. The broker, the load generator and the sink share the cores with what is measured. Rounds in turns, medians; ratios",
            "round by round. CPU is that of the process under test per event.",
            "",
            *grid(headings, rows),
        )

    def publish(self, mesh: ConfiguredMesh, kind: str) -> Compared:
        """Accepted per second, with 64 producers that send as soon as they are answered. Nobody subscribes, but a queue is bound."""
        exchange = f"bench-bare-{kind}"
        ours = f"knative-messaging-rabbitmq.default.publish-{kind}"
        for name in (exchange, ours):
            asyncio.run(_declared(self._url, name, kind))
        with self._bare("receive", "--exchange", exchange) as bare:
            systems: list[System] = [bare, mesh.entrance(f"publish-{kind}")]
            found = throughputs(self._rig, systems, Case(0, SIZE), self._rounds, self._warm_up_s, self._seconds, patient=True)
        for name in (exchange, ours):
            asyncio.run(_purged(self._url, name))
        return Compared(found[bare.name], found[f"publish-{kind}"])

    def deliver(self, kind: str, queue: str) -> Compared:
        """Delivered per second of what is in a queue already."""
        sides: dict[str, Callable[[], Throughput]] = {
            "bare": lambda: self._deliver_bare(f"bench-bare-{kind}"),
            "mesh": lambda: self._deliver_mesh(kind, queue),
        }
        found: dict[str, list[Throughput]] = {name: [] for name in sides}
        for number in range(self._rounds):
            for name in sorted(sides, reverse=bool(number % 2)):
                found[name].append(sides[name]())
        return Compared(found["bare"], found["mesh"])

    def _deliver_bare(self, queue: str) -> Throughput:
        asyncio.run(_stocked(self._url, queue, self._stock))
        try:
            with self._bare("deliver", "--queue", queue, "--connections", str(IN_FLIGHT), "--path", "/bare") as bare:
                return self._measure(bare)
        finally:
            asyncio.run(_purged(self._url, queue))

    def _deliver_mesh(self, kind: str, queue: str) -> Throughput:
        """The mesh is started on what is there."""
        asyncio.run(_stocked(self._url, queue, self._stock))
        try:
            with self._mesh() as mesh:
                return self._measure(mesh.entrance(f"stock-{kind}"))
        finally:
            asyncio.run(_purged(self._url, queue))

    def _measure(self, system: System) -> Throughput:
        return self._rig.from_stock(system, self._stock, self._warm_up_s, self._seconds)

    def _mesh(self) -> ConfiguredMesh:
        return ConfiguredMesh(self._rig.port, self._directory, "--rabbitmq", self._url)

    @contextmanager
    def _bare(self, half: str, *options: str) -> Iterator[Entrance]:
        process = python(half, "--url", self._url, "--sink", str(self._rig.port), *options, module="bare_rabbitmq")
        try:
            if half == "deliver":
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("the bare consumer did not start")
            port = 0 if half == "deliver" else read_port(process)
            yield Entrance(half, process.pid, port, "/")
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _subscription(self, channel: str) -> str:
        annotations = {"eventing-mesh.dev/concurrency": str(IN_FLIGHT)}
        return f"""\
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: {channel}, annotations: {json.dumps(annotations)}}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: RabbitmqChannel, name: {channel}}}
  subscriber: {{uri: "http://127.0.0.1:{self._rig.port}/{channel}"}}
---
"""

    def _apply(self, mesh: ConfiguredMesh, manifest: str) -> None:
        mesh.eventing("apply", "-f", "-", text=manifest)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._ready(mesh):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"not Ready within {_PATIENCE_S:g} s:\n" + mesh.eventing("get", "rabbitmqchannels,subscriptions")
                )
            time.sleep(0.1)

    def _ready(self, mesh: ConfiguredMesh) -> bool:
        objects = json.loads(mesh.eventing("get", "rabbitmqchannels,subscriptions", "-o", "json"))["items"]
        conditions = [(each.get("status") or {}).get("conditions") or () for each in objects]
        return all(any(one["type"] == "Ready" and one["status"] == "True" for one in each) for each in conditions)

    def _queue(self, mesh: ConfiguredMesh, name: str) -> str:
        """The queue of the Subscription of that name."""
        found = json.loads(mesh.eventing("get", "subscription", name, "-o", "json"))
        return f"rabbitmq.default.{name}.{found['metadata']['uid']}"


def _channel(name: str, kind: str) -> str:
    return f"""\
apiVersion: messaging.knative.dev/v1beta1
kind: RabbitmqChannel
metadata: {{name: {name}}}
spec: {{queueType: {kind}}}
---
"""


class Silent:
    """On an AMQP channel for calls nothing else happens."""

    def delivered(self, tag: int, header: bytes, body: bytes, *, again: bool, direct: bool) -> None: ...

    def confirmed(self, tag: int, *, multiple: bool, stored: bool) -> None: ...

    def returned(self, code: int, routing_key: bytes) -> None: ...

    def cancelled(self) -> None: ...

    def closed(self, error: EventingError) -> None: ...


async def _connected(url: str) -> Connection:
    return await connect(RabbitmqSettings(**read_url(url)), "bench")


async def _declared(url: str, name: str, kind: str) -> None:
    """An exchange and a queue of the same name, bound to it."""
    connection = await _connected(url)
    channel = await connection.channel(Silent())
    await channel.call(commands.Exchange.Declare(exchange=name, exchange_type="fanout", durable=True))
    await channel.call(commands.Queue.Declare(queue=name, durable=True, arguments={"x-queue-type": kind}))
    await channel.call(commands.Queue.Bind(queue=name, exchange=name, routing_key=""))
    await connection.close()


async def _purged(url: str, queue: str) -> None:
    connection = await _connected(url)
    channel = await connection.channel(Silent())
    await channel.call(commands.Queue.Purge(queue=queue), _PATIENCE_S)
    await connection.close()


async def _stocked(url: str, queue: str, count: int) -> None:
    """Put so many events, as the load generator sends them, into a queue."""
    connection = await _connected(url)
    more = asyncio.Semaphore(_AT_A_TIME)

    def ended(_: None, stored: bool, routed: bool) -> None:
        assert stored and routed
        more.release()

    confirming: Confirming[None] = Confirming("", ended, lambda tokens, error: None)
    await confirming.open(connection)
    body = b'{"at":"%020d","pad":"%b"}' % (0, b"x" * (SIZE - 38))
    headers = [
        (b"specversion", b"1.0"), (b"type", b"com.example.order.placed"), (b"source", b"/shop/orders"),
        (b"time", b"2026-01-01T00:00:00Z"),
    ]  # fmt: skip
    for number in range(count):
        await more.acquire()
        header = content_header(b"application/json", [*headers, (b"id", b"stock-%d" % number)], len(body), int(time.time()))
        confirming.send(header, body, None, queue.encode())
    for _ in range(_AT_A_TIME):
        await more.acquire()
    await connection.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        section(quick=os.environ.get("EVENTING_BENCH_QUICK", "") not in {"", "0"})
