"""The bare pair before and behind Kafka, which the Kafka channel is measured against. Its work is FIXED, as the floor's is.

`receive`: the floor's receiver (httptools, header callbacks, the `ce-` headers and the content type kept) in front of a bare aiokafka
producer: acks=all, idempotent, everything else as the library has it. One record per request, answered 202 when the broker has
acknowledged it; no key.

`deliver`: a bare aiokafka consumer of a group, automatic commits once a second, before the floor's client: each record becomes a POST
to the target over a pool of keep-alive connections, one request on each at a time. It reads on when fewer wait than there are
connections. No order, no retry, no look at the answer.

`pair`: both in one process, as the mesh is one.

None of it validates, routes, times out, counts, records or refuses anything. Each prints a line when it is ready: the port of the
receiver, or `ready`.
"""

import argparse
import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.bench.bare_pair import connected_pool, main
from tests.bench.floor import ACCEPTED, Inbound, Pool

READ_AT_ONCE = 500


class Publisher(Inbound):
    def __init__(self, producer: AIOKafkaProducer, topic: str, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__(Pool([], b"", 0))
        self.producer = producer
        self.topic = topic
        self.tasks = tasks
        self.headers: list[tuple[str, bytes]] = []

    def on_message_begin(self) -> None:
        self.headers = []
        self.body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name.startswith(b"ce-"):
            self.headers.append(("ce_" + name[3:].decode(), value))
        elif name == b"content-type":
            self.headers.append(("content-type", value))

    def on_message_complete(self) -> None:
        task = asyncio.create_task(self.publish(b"".join(self.body), self.headers))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def publish(self, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        await self.producer.send_and_wait(self.topic, value, headers=headers)
        self.transport.write(ACCEPTED)


async def receive(options: argparse.Namespace) -> asyncio.Server:
    producer = AIOKafkaProducer(bootstrap_servers=options.bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Publisher(producer, options.topic, tasks), "127.0.0.1", 0, backlog=1024)


async def deliver(options: argparse.Namespace, said: str) -> None:
    pool = await connected_pool(options)
    consumer = AIOKafkaConsumer(
        options.topic,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=1000,
    )
    await consumer.start()
    print(said, flush=True)
    prefix = pool.prefixes[0]
    while True:
        batches = await consumer.getmany(timeout_ms=1000, max_records=READ_AT_ONCE)
        for records in batches.values():
            for record in records:
                lines = [prefix]
                for name, value in record.headers:
                    line = "ce-" + name[3:] if name.startswith("ce_") else name
                    lines += (line.encode(), b": ", value, b"\r\n")
                lines.append(b"content-length: %d\r\n\r\n" % len(record.value))
                lines.append(record.value)
                pool.forward(b"".join(lines))
        while len(pool.waiting) >= pool.size:
            pool.low.clear()
            await pool.low.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The bare pair that the Kafka channel is measured against.")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="bare")
    main(parser, receive, deliver)
