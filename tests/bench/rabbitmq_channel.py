"""What the RabbitMQ channel costs beside a bare pair of aio-pika clients (`bare_rabbitmq.py`), on the same broker.

A section of `make bench`; alone: `python -m tests.bench.rabbitmq_channel`. Needs a RabbitMQ, as the tests do.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from pamqp import commands

from eventing.errors import EventingError
from eventing_rabbitmq.confirming import Confirming
from eventing_rabbitmq.connection import Connection, connect
from eventing_rabbitmq.frames import content_header
from eventing_rabbitmq.settings import RabbitmqSettings
from eventing_rabbitmq.url import read_url
from tests.bench.beside import GOAL, HEADINGS, PATIENCE_S, SIZE, Beside, Compared, said
from tests.bench.configuring import ConfiguredMesh
from tests.bench.report import grid
from tests.bench.rounds import Rig, Throughput
from tests.support.rabbitmq.back_end import RABBITMQ, versions
from tests.support.rabbitmq.broker import RabbitmqBroker
from tests.support.reaper import Reaper

__all__ = ["section"]

IN_FLIGHT: Final = 32
KINDS: Final = ("quorum", "classic")
STOCK_RATE: Final = 16_000  # events per second that nobody here delivers: so many are in stock for each second measured
TITLE: Final = "## Through RabbitMQ"
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
        return RabbitmqBench(rig, directory / "mesh", broker.url, quick=quick).lines(f"{broker.version} {back_end}")


class RabbitmqBench(Beside):
    """All that is measured on one broker."""

    kind = "RabbitmqChannel"
    plural = "rabbitmqchannels"
    module = "bare_rabbitmq"

    def __init__(self, rig: Rig, directory: Path, url: str, *, quick: bool) -> None:
        super().__init__(rig, ("--url", url), quick=quick)
        self._directory = directory
        self._url = url
        self.stock = int(STOCK_RATE * (self.seconds + self.warm_up_s + 0.5))

    def lines(self, where: str) -> list[str]:
        rows = []
        for kind in KINDS:
            with self._mesh() as mesh:
                self.apply(mesh, _channel(f"publish-{kind}", kind) + _channel(f"stock-{kind}", kind))
                self.apply(
                    mesh, self.subscription(f"stock-{kind}", f"stock-{kind}", {"eventing-mesh.dev/concurrency": str(IN_FLIGHT)})
                )
                queue = self._queue(mesh, f"stock-{kind}")
                published = self.publish(mesh, kind)
            said(" | ".join(published.row(f"publish, {kind}")))
            delivered = self.deliver(kind, queue)
            said(" | ".join(delivered.row(f"deliver, {kind}")))
            rows += [
                published.row(f"publish, {kind} (goal: at least {GOAL:.0%} of its rate)"),
                delivered.row(f"consume and deliver, {kind}, {IN_FLIGHT} in flight (goal: {GOAL:.0%})"),
            ]
        return said(
            TITLE,
            "",
            f"Beside a bare pair of aio-pika clients (`tests/bench/bare_rabbitmq.py`), on the same broker ({where}, one node, no TLS)",
            f"with as many requests in flight; events of {SIZE} bytes in binary mode, persistent and confirmed on both sides, one queue",
            "each. The broker, the load generator and the sink share the cores with what is measured. Rounds in turns, medians; ratios",
            "round by round. CPU is that of the process under test per event.",
            "",
            *grid(HEADINGS, rows),
        )

    def publish(self, mesh: ConfiguredMesh, kind: str) -> Compared:
        """Nobody subscribes, but a queue is bound."""
        exchange = f"bench-bare-{kind}"
        ours = f"knative-messaging-rabbitmq.default.publish-{kind}"
        for name in (exchange, ours):
            asyncio.run(_declared(self._url, name, kind))
        with self.bare("receive", "--exchange", exchange) as bare:
            found = self.accepted(bare, mesh.entrance(f"publish-{kind}"))
        for name in (exchange, ours):
            asyncio.run(_purged(self._url, name))
        return found

    def deliver(self, kind: str, queue: str) -> Compared:
        """Delivered per second of what is in a queue already."""
        return self.in_turns(
            lambda _number: self._deliver_bare(f"bench-bare-{kind}"),
            lambda _number: self._deliver_mesh(kind, queue),
        )

    def _deliver_bare(self, queue: str) -> Throughput:
        asyncio.run(_stocked(self._url, queue, self.stock))
        try:
            with self.bare("deliver", "--queue", queue, "--connections", str(IN_FLIGHT)) as bare:
                return self.from_stock(bare)
        finally:
            asyncio.run(_purged(self._url, queue))

    def _deliver_mesh(self, kind: str, queue: str) -> Throughput:
        """The mesh is started on what is there."""
        asyncio.run(_stocked(self._url, queue, self.stock))
        try:
            with self._mesh() as mesh:
                return self.from_stock(mesh.entrance(f"stock-{kind}"))
        finally:
            asyncio.run(_purged(self._url, queue))

    def _mesh(self) -> ConfiguredMesh:
        return ConfiguredMesh(self.rig.port, self._directory, "--rabbitmq", self._url)

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
    await channel.call(commands.Queue.Purge(queue=queue), PATIENCE_S)
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
