"""The bare pair before and behind RabbitMQ, which the RabbitMQ channel is measured against. Its work is FIXED, as the floor's is.

`receive`: the floor's receiver (httptools, header callbacks, the `ce-` headers and the content type kept) in front of a bare aio-pika
publisher: persistent messages to a fanout exchange, publisher confirms in flight together, everything else as the library has it. One
message per request, answered 202 when the broker has confirmed it.

`deliver`: a bare aio-pika consumer before the floor's client: each message becomes a POST to the target over a pool of keep-alive
connections, one request on each at a time, and is acknowledged when it has been handed on. Prefetch is twice the connections. It waits
while more are queued than there are connections. No retry, no look at the answer.

`pair`: both in one process, as the mesh is one.

None of it validates, routes, times out, counts, records or refuses anything. Each prints a line when it is ready: the port of the
receiver, or `ready`.
"""

import argparse
import asyncio

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from tests.bench.bare_pair import connected_pool, main
from tests.bench.floor import ACCEPTED, Inbound, Pool


class Publisher(Inbound):
    def __init__(self, exchange: AbstractExchange, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__(Pool([], b"", 0))
        self.exchange = exchange
        self.tasks = tasks
        self.headers: dict[str, str] = {}
        self.content_type = ""

    def on_message_begin(self) -> None:
        self.headers = {}
        self.body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name.startswith(b"ce-"):
            self.headers[name[3:].decode()] = value.decode()
        elif name == b"content-type":
            self.content_type = value.decode()

    def on_message_complete(self) -> None:
        message = aio_pika.Message(
            b"".join(self.body),
            headers=self.headers,  # type: ignore[arg-type]  # a dict of strings is one of field values
            content_type=self.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        task = asyncio.create_task(self.publish(message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def publish(self, message: aio_pika.Message) -> None:
        await self.exchange.publish(message, "")
        self.transport.write(ACCEPTED)


async def receive(options: argparse.Namespace) -> asyncio.Server:
    connection = await aio_pika.connect(options.url)
    channel = await connection.channel()
    exchange = await channel.get_exchange(options.exchange)
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Publisher(exchange, tasks), "127.0.0.1", 0, backlog=1024)


async def deliver(options: argparse.Namespace, said: str) -> None:
    pool = await connected_pool(options)
    connection = await aio_pika.connect(options.url)
    channel = await connection.channel()
    await channel.set_qos(2 * options.connections)
    queue = await channel.get_queue(options.queue)
    print(said, flush=True)
    prefix = pool.prefixes[0]

    async def forward(message: AbstractIncomingMessage) -> None:
        while len(pool.waiting) >= pool.size:
            pool.low.clear()
            await pool.low.wait()
        lines = [prefix]
        for name, value in message.headers.items():
            lines += (b"ce-", name.encode(), b": ", str(value).encode(), b"\r\n")
        lines.append(b"content-type: %b\r\n" % (message.content_type or "").encode())
        lines.append(b"content-length: %d\r\n\r\n" % len(message.body))
        lines.append(message.body)
        pool.forward(b"".join(lines))
        await message.ack()

    await queue.consume(forward)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The bare pair that the RabbitMQ channel is measured against.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--exchange", default="", help="that the receiver publishes to")
    parser.add_argument("--queue", default="", help="that the consumer reads")
    main(parser, receive, deliver)
