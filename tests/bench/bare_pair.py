"""What bare pairs have alike, whatever is between the two: the way to the sink, and what of the pair is run. FIXED, as their work is."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from tests.bench.floor import Outbound, Pool

__all__ = ["DrainedPool", "connected_pool", "main"]


class DrainedPool(Pool):
    """Says when fewer requests wait than it has connections."""

    def __init__(self, path: str, sink: int, size: int) -> None:
        super().__init__([path.encode()], b"127.0.0.1:%d" % sink, 0)
        self.size = size
        self.low = asyncio.Event()


class _Client(Outbound):
    pool: DrainedPool

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if len(self.pool.waiting) < self.pool.size:
            self.pool.low.set()


async def connected_pool(options: argparse.Namespace) -> DrainedPool:
    """To the sink, with all its connections."""
    pool = DrainedPool(options.path, options.sink, options.connections)
    loop = asyncio.get_running_loop()
    for _ in range(options.connections):
        await loop.create_connection(lambda: _Client(pool), "127.0.0.1", options.sink)
    return pool


def main(
    parser: argparse.ArgumentParser,
    receive: Callable[[argparse.Namespace], Awaitable[asyncio.Server]],
    deliver: Callable[[argparse.Namespace, str], Awaitable[None]],
) -> None:
    """Run the half, or both, that is asked for; `deliver` says what it is given, once it is ready. `parser` knows the back end's own
    options."""
    parser.add_argument("half", choices=["receive", "deliver", "pair"])
    parser.add_argument("--sink", type=int, default=0, help="port of the sink")
    parser.add_argument("--path", default="/bare", help="of the target at the sink")
    parser.add_argument("--connections", type=int, default=32, help="to the sink: how many requests are on their way at most")
    options = parser.parse_args()

    async def run() -> None:
        said = "ready"
        if options.half != "deliver":
            server = await receive(options)
            said = str(server.sockets[0].getsockname()[1])
            if options.half == "receive":
                print(said, flush=True)
                await server.serve_forever()
        await deliver(options, said)

    uvloop.run(run())
