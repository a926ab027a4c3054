"""What the Kafka channel costs beside a bare pair of aiokafka clients (`bare_kafka.py`), on the same broker.

A section of `make bench`; alone: `python -m tests.bench.kafka_channel`. Needs a Kafka, as the tests do.
"""

import asyncio
import json
import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from tests.bench.beside import GOAL, HEADINGS, SIZE, Beside, Compared, said, shown
from tests.bench.configuring import ConfiguredMesh
from tests.bench.report import grid
from tests.bench.rounds import Range, Rig, Throughput, latencies, throughputs
from tests.bench.systems import Case, System
from tests.support.kafka.back_end import KAFKA
from tests.support.kafka.broker import KafkaBroker
from tests.support.reaper import Reaper

__all__ = ["section"]

PARTITIONS: Final = 16
UNORDERED: Final = 32  # requests on their way at most in order `none`; in order `partition` it is one for each partition
STOCK_RATE: Final = 80_000  # events per second that nobody here delivers: so many are in stock for each second measured
TITLE: Final = "## Through Kafka"
_JVM: Final = "-XX:+UseSerialGC"


def section(quick: bool) -> list[str]:
    """The part of docs/benchmarks.md."""
    back_end = KAFKA.found
    if back_end is None:
        return said(TITLE, "", f"Left out, since there was no Kafka: {KAFKA.remedy}.")
    with ExitStack() as stack:
        reaper = Reaper()
        stack.callback(reaper.close)
        # As brokers run, and not as the tests' do, which are to start quickly.
        broker = KafkaBroker(back_end, reaper, jvm=_JVM)
        stack.callback(broker.remove)
        broker.start()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventing-bench-")))
        rig = Rig(directory)
        stack.callback(rig.close)
        mesh = stack.enter_context(ConfiguredMesh(rig.port, directory / "mesh", "--kafka", broker.bootstrap))
        return KafkaBench(rig, mesh, broker.bootstrap, quick=quick).lines(str(back_end))


class KafkaBench(Beside):
    """All that is measured on one broker with one mesh."""

    kind = "KafkaChannel"
    plural = "kafkachannels"
    module = "bare_kafka"

    def __init__(self, rig: Rig, mesh: ConfiguredMesh, bootstrap: str, *, quick: bool) -> None:
        super().__init__(rig, ("--bootstrap", bootstrap), quick=quick)
        self._mesh = mesh
        self._bootstrap = bootstrap
        self.stock = int(STOCK_RATE * (self.seconds + self.warm_up_s) * (0.5 if quick else 1.0))

    def lines(self, where: str) -> list[str]:
        published = self.publish()
        said(" | ".join(published.row("publish")))
        asyncio.run(self._make_stock())
        ordered = self.deliver("ordered", PARTITIONS)
        said(" | ".join(ordered.row("deliver, ordered")))
        unordered = self.deliver("unordered", UNORDERED)
        said(" | ".join(unordered.row("deliver, unordered")))
        through, timed = self.through()
        rows = [
            published.row(f"publish (goal: at least {GOAL:.0%} of its rate)"),
            ordered.row(f"consume and deliver, ordered, {PARTITIONS} in flight (goal: {GOAL:.0%})"),
            unordered.row(f"consume and deliver, unordered, {UNORDERED} in flight (goal: {GOAL:.0%})"),
            through.row("both, closed loop of 256"),
        ]
        return said(
            TITLE,
            "",
            f"Beside a bare pair of aiokafka clients (`tests/bench/bare_kafka.py`), on the same broker ({where}, one node, no TLS) with the",
            f"same {PARTITIONS} partitions and as many requests in flight; events of {SIZE} bytes in binary mode, acks=all on both sides. The",
            "broker, the load generator and the sink share the cores with what is measured. Rounds in turns, medians; ratios round by round.",
            "CPU is that of the process under test per event.",
            "",
            *grid(HEADINGS, rows),
            "",
            *timed,
        )

    def publish(self) -> Compared:
        """Nobody subscribes."""
        topic = "bench-bare-publish"
        asyncio.run(_make_topic(self._bootstrap, topic))
        self._apply(_channel("publish"))
        with self.bare("receive", "--topic", topic) as bare:
            return self.accepted(bare, self._mesh.entrance("publish"))

    def deliver(self, order: str, in_flight: int) -> Compared:
        """Delivered per second of what is in a topic already."""
        return self.in_turns(
            lambda number: self._deliver_bare(f"bare-{order}-{number}", in_flight),
            lambda number: self._deliver_mesh(f"{order}-{number}", order, in_flight),
        )

    def _deliver_bare(self, group: str, in_flight: int) -> Throughput:
        options = ("--topic", "bench-stock", "--group", group, "--connections", str(in_flight))
        with self.bare("deliver", *options) as bare:
            return self.from_stock(bare)

    def _deliver_mesh(self, name: str, order: str, in_flight: int) -> Throughput:
        asyncio.run(_begin_at_start(self._bootstrap, "bench-stock", f"bench-{name}"))
        annotations = {
            "group.id": f"bench-{name}",
            "kafka.eventing.knative.dev/delivery.order": order,
            "eventing-mesh.dev/concurrency": str(in_flight),
        }
        subscription = self.subscription("stock", name, annotations)
        self._apply(subscription, wait=False)  # its first deliveries say when it is ready
        try:
            return self.from_stock(self._mesh.entrance("stock"))
        finally:
            self._mesh.eventing("delete", "subscription", name)

    def through(self) -> tuple[Compared, list[str]]:
        """From acceptance to delivery, as fast as it goes and at half the mesh's rate."""
        topic = "bench-bare-through"
        asyncio.run(_make_topic(self._bootstrap, topic))
        annotations = {"eventing-mesh.dev/concurrency": str(PARTITIONS)}
        self._apply(_channel("through") + self.subscription("through", "through", annotations))
        case = Case(1, SIZE, "kafka")
        with self.bare("pair", "--topic", topic, "--connections", str(PARTITIONS)) as bare:
            systems: list[System] = [bare, self._mesh.entrance("through")]
            fast = throughputs(self.rig, systems, case, self.rounds, self.warm_up_s, self.seconds, patient=True)
            rate = max(1, int(Range.of([one.deliveries_per_s for one in fast["through"]]).middle / 2))
            slow = latencies(self.rig, systems, case, rate, self.rounds, self.warm_up_s, self.seconds)
        timed = [
            f"From the moment an event was due at the ingress to its arrival at the subscriber, at {rate:,} events/s, half of what the",
            "mesh takes and delivers at most:",
            "",
            *grid(
                ("", "p50 ms", "p99 ms", "CPU µs"),
                [
                    (
                        title,
                        shown(Range.of([one.p50 for one in slow[name]]), ".1f"),
                        shown(Range.of([one.p99 for one in slow[name]]), ".1f"),
                        shown(Range.of([one.cpu_us for one in slow[name]]), ".0f"),
                    )
                    for title, name in (("bare pair", "pair"), ("mesh", "through"))
                ],
            ),
        ]
        return Compared(fast["pair"], fast["through"]), timed

    def _apply(self, manifest: str, *, wait: bool = True) -> None:
        self.apply(self._mesh, manifest, wait=wait)

    async def _make_stock(self) -> None:
        """A topic with events as the load generator sends them, and a channel that stands on it."""
        from aiokafka import AIOKafkaProducer

        await _make_topic(self._bootstrap, "bench-stock")
        value = b'{"at":"%020d","pad":"%b"}' % (0, b"x" * (SIZE - 38))
        headers = [
            ("ce_specversion", b"1.0"), ("ce_type", b"com.example.order.placed"), ("ce_source", b"/shop/orders"),
            ("ce_time", b"2026-01-01T00:00:00Z"), ("content-type", b"application/json"),
        ]  # fmt: skip
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, linger_ms=20, max_batch_size=256 << 10)
        await producer.start()
        try:
            for number in range(self.stock):
                last = await producer.send(
                    "bench-stock", value, headers=[*headers, ("ce_id", b"stock-%d" % number)], partition=number % PARTITIONS
                )
            await last
            await producer.flush()
        finally:
            await producer.stop()
        await asyncio.to_thread(self._apply, _channel("stock", topic="bench-stock"))


def _channel(name: str, topic: str = "") -> str:
    annotations = {"kafka.eventing.knative.dev/external.topic": topic} if topic else {}
    return f"""\
apiVersion: messaging.knative.dev/v1beta1
kind: KafkaChannel
metadata: {{name: {name}, annotations: {json.dumps(annotations)}}}
spec: {{numPartitions: {PARTITIONS}, replicationFactor: 1}}
---
"""


async def _make_topic(bootstrap: str, topic: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


async def _begin_at_start(bootstrap: str, topic: str, group: str) -> None:
    """Give the group a place in the topic: its beginning."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    await consumer.start()
    try:
        await consumer.commit(dict.fromkeys(consumer.assignment(), 0))
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        section(quick=os.environ.get("EVENTING_BENCH_QUICK", "") not in {"", "0"})
