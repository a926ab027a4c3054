"""A sink in a thread of its own, for tests that are not coroutines."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from eventing.testing.sinks import Sink
from tests.support.waiting import DEADLINE_S

__all__ = ["sink_thread"]


@contextmanager
def sink_thread() -> Iterator[Sink]:
    """The sink, listening; what it met that was no HTTP is raised at the end."""
    ready = threading.Event()
    failed: list[BaseException] = []
    found: list[tuple[Sink, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with Sink() as sink:
            found.append((sink, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(DEADLINE_S), "the sink was not ready in time"
    if not failed:
        sink, loop, stop = found[0]
        try:
            yield sink
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(DEADLINE_S)
    if failed:
        raise failed[0]
