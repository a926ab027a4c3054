"""A whole mesh, or a sink, in a thread of its own, for tests and clients that are no coroutines."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Sink
from tests.support.waiting import DEADLINE_S

__all__ = ["mesh_thread", "sink_thread"]

T = TypeVar("T")


def mesh_thread(data_dir: Path, **options: Any) -> AbstractContextManager[Mesh]:
    """The mesh with these `options`, ready; it is stopped at the end, and what went wrong in it is raised. One serves all tests of
    a module."""
    return _loop_thread(lambda: Mesh(data_dir, drain_s=0.2, **options), "the mesh")


def sink_thread() -> AbstractContextManager[Sink]:
    """The sink, listening; what it met that was no HTTP is raised at the end."""
    return _loop_thread(Sink, "the sink")


@contextmanager
def _loop_thread(make: Callable[[], AbstractAsyncContextManager[T]], what: str) -> Iterator[T]:
    """What `make` makes, entered in an event loop of its own thread and left at the end."""
    ready = threading.Event()
    failed: list[BaseException] = []
    found: list[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with make() as made:
            found.append((made, asyncio.get_running_loop(), stop))
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
    assert ready.wait(DEADLINE_S), f"{what} was not ready in time"
    if not failed:
        made, loop, stop = found[0]
        try:
            yield made
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(DEADLINE_S)
    if failed:
        raise failed[0]
