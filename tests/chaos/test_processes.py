"""The processes of a real `eventing up` killed, stopped and terminated while events come in.

Where the data plane is killed, what in-memory channels held is lost and nothing else: what it had delivered is exact, and the next
process serves the same subscriptions by itself. Where it is asked to stop, everything has an end within the deadline. Where control
is away, nothing that is due notices.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eventing.kube import KubeClient
from eventing.kube.cluster import load_kubeconfig
from eventing.resources.conditions import is_ready
from eventing.resources.messaging import SUBSCRIPTION
from eventing.runtime.mesh_client import MeshClient
from eventing.testing.sinks import Answer, Sink, failing_at_random
from eventing_memory.kind import IN_MEMORY_CHANNEL
from tests.chaos.books import Asked, balance
from tests.chaos.changes import Changes
from tests.chaos.traffic import Traffic
from tests.support.up import Up

pytestmark = pytest.mark.timeout(180)
FEW = 1  # rounds in a default run: each starts processes
DRAIN_S = 1.0


class Rig:
    """A real mesh, a sink in the test's own loop, and what is done to both."""

    def __init__(self, mesh: Up, client: KubeClient, sink: Sink, rand: random.Random) -> None:
        self.mesh = mesh
        self.client = client
        self.traffic = Traffic(urlsplit(mesh.endpoints["ingress"]).port or 0, rand)
        self.changes = Changes(client, self.traffic, sink, rand)

    @property
    def asked(self) -> Asked:
        return asked(self.mesh)

    async def pid(self, role: str) -> int:
        """Of the process that plays it, or of the next one where there is none now."""
        async with asyncio.timeout(40):
            while (found := (await asyncio.to_thread(self.mesh.children)).get(role)) is None:
                await asyncio.sleep(0.05)
        return found

    async def signal(self, role: str, number: int) -> None:
        os.kill(await self.pid(role), number)

    async def stop(self) -> int:
        return await asyncio.to_thread(self.mesh.stop)


def asked(mesh: Up) -> Asked:
    return Asked(urlsplit(mesh.endpoints["metrics"]).port or 0, MeshClient.find(mesh.data_dir).token)


@asynccontextmanager
async def rig(data: Path, seed: int) -> AsyncIterator[tuple[Rig, Sink, random.Random]]:
    rand = random.Random(seed)
    failing = failing_at_random(seed, 0.15, Answer(500), Answer(503), Answer.cut(), Answer.cut(25))
    async with Sink() as sink:
        sink.otherwise(lambda received: Answer() if received.path.startswith("/dead/") else failing(received))
        with Up(data, f"--drain-timeout={DRAIN_S}") as mesh:
            await asyncio.to_thread(mesh.ready)
            client = KubeClient(load_kubeconfig(mesh.data_dir / "kubeconfig"), user_agent="chaos")
            try:
                made = Rig(mesh, client, sink, rand)
                await made.changes.make_channel()
                yield made, sink, rand
            finally:
                await client.aclose()


async def test_the_data_plane_is_killed(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path / "data", seed) as (made, sink, rand):
        traffic, changes = made.traffic, made.changes
        sink.always("/slow/1", Answer().after(0.03))
        for name, ordered in (("steady", False), ("ordered", True), ("slow", False)):
            await changes.subscribe(name, ordered=ordered)
        killed: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run(producers=4))
            for _ in range(rand.randint(1, 2)):
                await traffic.until(rand.randint(20, 100))
                await made.signal("DataPlaneRole", signal.SIGKILL)
                killed |= {each.process for each in traffic.accepted}
                async with asyncio.timeout(40):
                    while {each.process for each in traffic.accepted} <= killed:
                        await asyncio.sleep(0.01)
            await traffic.until(50)
            traffic.stop()
        ends = await balance(traffic, changes.all, sink, made.asked, drops=(), killed=killed)
        assert ends["delivered"] >= 100
        assert await made.stop() == 0, made.mesh.log
        assert "was killed by SIGKILL" in made.mesh.log
        assert "what in-memory channels held" in made.mesh.log
        assert "Traceback" not in made.mesh.log


async def test_a_stop_under_load_ends_everything_within_its_deadline(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path / "data", seed) as (made, sink, rand):
        traffic, changes = made.traffic, made.changes
        await changes.subscribe("steady")
        await changes.subscribe("ordered", ordered=True)
        stuck = [await changes.subscribe("stuck"), await changes.subscribe("stuck-without", dead_letters=False)]
        for each in stuck:
            sink.always(each.path, Answer.never())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run(producers=4))
            await traffic.until(rand.randint(30, 150))
            began = time.monotonic()
            assert await made.stop() == 0, made.mesh.log
            took = time.monotonic() - began
            traffic.stop()
        assert took < DRAIN_S + 8, "the deadline, a grace for dead letters, control's own stop, and a busy machine"
        assert "events were dropped with reason Shutdown" in made.mesh.log
        assert "did not stop in time" not in made.mesh.log
        assert "Traceback" not in made.mesh.log
        # What was dropped is known to the next mesh on the same directory.
        with Up(made.mesh.data_dir) as after:
            await asyncio.to_thread(after.ready)
            ends = await balance(traffic, changes.all, sink, asked(after), drops=("Shutdown",))
            assert await asyncio.to_thread(after.stop) == 0, after.log
        assert ends["Shutdown"] > 10
        assert ends["dead-lettered"] > 10
        assert ends["delivered"] >= 60


async def test_the_data_plane_is_told_to_stop_and_the_next_one_goes_on(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path / "data", seed) as (made, sink, rand):
        traffic, changes = made.traffic, made.changes
        await changes.subscribe("steady")
        await changes.subscribe("ordered", ordered=True)
        stopped: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run(producers=4))
            await traffic.until(rand.randint(20, 100))
            await made.signal("DataPlaneRole", signal.SIGTERM)
            stopped |= {each.process for each in traffic.accepted}
            async with asyncio.timeout(40):
                while {each.process for each in traffic.accepted} <= stopped:
                    await asyncio.sleep(0.01)
            await traffic.until(20)
            traffic.stop()
        # Nothing is lost and nothing is dropped; at the old process only deliveries count, its memory is gone.
        ends = await balance(traffic, changes.all, sink, made.asked, drops=())
        assert ends["delivered"] >= 80
        assert await made.stop() == 0, made.mesh.log
        assert "what in-memory channels held" not in made.mesh.log


async def test_control_is_stopped_killed_and_started(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path / "data", seed) as (made, sink, rand):
        traffic, changes = made.traffic, made.changes
        await changes.subscribe("steady")
        await changes.subscribe("ordered", ordered=True)
        data_plane = await made.pid("DataPlaneRole")
        actions = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]
        rand.shuffle(actions)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run())
            for number in actions:
                await traffic.until(rand.randint(1, 30))
                change = tasks.create_task(changes.random())
                await asyncio.sleep(rand.random() * 0.02)
                pid = await made.pid("Control")
                os.kill(pid, number)
                await traffic.until(rand.randint(20, 60))  # nobody notices
                if number == signal.SIGSTOP:
                    os.kill(pid, signal.SIGCONT)
                await change
            await changes.recreate("steady") if "steady" in changes.live else await changes.subscribe("steady")
            await traffic.until(20)
            traffic.stop()
        await balance(traffic, changes.all, sink, made.asked, drops=("SubscriptionDeleted", "NoDeadLetterSink"))
        assert traffic.statuses == {202}
        assert await made.pid("DataPlaneRole") == data_plane
        assert await made.stop() == 0, made.mesh.log
        assert "Traceback" not in made.mesh.log


async def test_nobody_is_ready_before_the_data_plane_has_applied_it(tmp_path: Path) -> None:
    async with rig(tmp_path / "data", 0) as (made, sink, _rand):
        pid = await made.pid("DataPlaneRole")
        os.kill(pid, signal.SIGSTOP)
        subscribing = asyncio.create_task(made.changes.subscribe("steady"))
        try:
            async with asyncio.timeout(20):
                while not (await made.client.get(IN_MEMORY_CHANNEL, "default", "orders"))["spec"].get("subscribers"):
                    await asyncio.sleep(0.01)
            for _ in range(20):
                assert not is_ready(await made.client.get(SUBSCRIPTION, "default", "steady"))
        finally:
            os.kill(pid, signal.SIGCONT)
        await subscribing
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(made.traffic.run())
            await made.traffic.until(5)
            made.traffic.stop()
        await balance(made.traffic, made.changes.all, sink, made.asked, drops=())
