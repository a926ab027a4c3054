"""On a channel that keeps events, a drop is on the disk before the channel lets go of the event."""

import asyncio
import dataclasses
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventing.channels import Channel, ChannelHost
from eventing.journal.failures import FailureLog
from eventing.resources.kinds import Object
from eventing.testing.answers import Answer
from eventing.testing.sinks import Sink
from eventing_memory.channel import MemoryChannel
from eventing_memory.factory import MemoryChannelFactory
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.waiting import DEADLINE_S


class KeepingFactory(MemoryChannelFactory):
    """Channels that say that they keep events until they are settled."""

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        made = MemoryChannel(channel, budget=host.budget, clock=host.clock)
        made.capabilities = dataclasses.replace(made.capabilities, durable=True)
        return made


class Disk:
    """Takes nothing while it is full."""

    def __init__(self) -> None:
        self.full = False
        self.refused = 0

    def write(self, fd: int, data: bytes) -> int:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)


@asynccontextmanager
async def recording(mesh: DataPlaneRig, directory: Path, disk: Disk) -> AsyncIterator[FailureLog]:
    async with asyncio.TaskGroup() as tasks:
        failures = FailureLog(directory, mesh.journal, write=disk.write, retry_s=0.05)
        failures.open()
        failures.start(tasks)
        yield failures
        await mesh.stop(1.0)
        await failures.aclose(0.5)


def on_disk(directory: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in directory.glob("*.seg"))


async def until(probe: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not probe():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("dead_letter", [False, True], ids=["without a sink", "refused by the sink"])
async def test_an_event_is_let_go_of_once_its_drop_is_on_the_disk(tmp_path: Path, dead_letter: bool) -> None:
    disk = Disk()
    disk.full = True
    async with Sink() as sink, DataPlaneRig() as mesh, recording(mesh, tmp_path, disk):
        mesh.factory = KeepingFactory()
        sink.otherwise(Answer(400))
        options = {"dead_letter": sink.url} if dead_letter else {}
        mesh.channel("orders", subscriber("s", sink.url, **options))
        await mesh.accepted(make_event("kept"))
        await mesh.ended("kept")
        worker = mesh.worker("s")
        await until(lambda: disk.refused)
        assert worker.lag().events == 1, "the channel still has it"
        assert worker.in_flight == 1
        disk.full = False
        await until(lambda: worker.lag().events == 0)
        assert on_disk(tmp_path, b"kept")
        assert mesh.journal.failures_lost == 0
        assert worker.in_flight == 0


async def test_at_the_end_what_could_not_be_recorded_stays_with_the_channel(tmp_path: Path) -> None:
    disk = Disk()
    disk.full = True
    async with Sink() as sink, DataPlaneRig() as mesh:
        mesh.factory = KeepingFactory()
        sink.otherwise(Answer(400))
        async with recording(mesh, tmp_path, disk):
            mesh.channel("orders", subscriber("s", sink.url))
            await mesh.accepted(make_event("kept"))
            await mesh.ended("kept")
            worker = mesh.worker("s")
            settled: list[Any] = []
            assert worker._cursor is not None
            worker._cursor.settle = settled.append  # type: ignore[method-assign,assignment]
        assert not settled


async def test_events_owed_do_not_hold_up_a_subscription_that_works(tmp_path: Path) -> None:
    disk = Disk()
    disk.full = True
    async with Sink() as bad, Sink() as good, DataPlaneRig() as mesh, recording(mesh, tmp_path, disk):
        mesh.factory = KeepingFactory()
        bad.otherwise(Answer(400))
        mesh.channel("orders", subscriber("bad", bad.url), subscriber("good", good.url))
        for number in range(30):
            await mesh.accepted(make_event(str(number)))
        await until(lambda: mesh.worker("good").lag().events == 0)
        assert mesh.worker("bad").in_flight == 10, "as many as may be in flight wait for the disk"
        disk.full = False
        await until(lambda: mesh.worker("bad").lag().events == 0)
        assert mesh.journal.failures_written == 30
