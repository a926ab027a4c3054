"""A whole mesh in a thread of its own, for tests of synchronous clients; one serves all tests of a module."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eventing.runtime.mesh import Mesh
from tests.support.waiting import DEADLINE_S

__all__ = ["mesh_thread"]


@contextmanager
def mesh_thread(data_dir: Path, **options: Any) -> Iterator[Mesh]:
    """The mesh with these `options`, ready; it is stopped at the end, and what went wrong in it is raised."""
    ready = threading.Event()
    failed: list[BaseException] = []
    found: list[tuple[Mesh, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with Mesh(data_dir, drain_s=0.2, **options) as mesh:
            found.append((mesh, asyncio.get_running_loop(), stop))
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
    assert ready.wait(DEADLINE_S), "the mesh was not ready in time"
    if not failed:
        mesh, loop, stop = found[0]
        try:
            yield mesh
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(DEADLINE_S)
    if failed:
        raise failed[0]
