"""A mesh with a channel that outlives it, a sink and traffic, for tests of faults."""

import asyncio
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from eventing.errors import ObjectNotFoundError
from eventing.kube import KubeClient
from eventing.kube.cluster import load_kubeconfig
from eventing.resources.conditions import condition_of
from eventing.resources.kinds import Kind, Object
from eventing.runtime.mesh_client import MeshClient
from eventing.testing.sinks import Answer, Sink, failing_at_random
from tests.chaos.books import Asked, balance
from tests.chaos.changes import DELIVERY, Changes
from tests.chaos.traffic import Traffic
from tests.support.up import Up

__all__ = ["DATA_PLANE", "Rig", "open_rig"]

PATIENCE_S: Final = 90.0
COMMIT_S: Final = 1.0  # what is settled is recorded within this
SLACK_S: Final = 2.0  # a busy machine
RECOVERY_S: Final = 120.0  # a broker starts, sessions of the dead end, a busy machine
DATA_PLANE: Final = "DataPlaneRole"


@dataclass
class Rig:
    """`eventing up` with a channel of `kind`, and what is done to it. `faults` are moments of loop time."""

    mesh: Up
    client: KubeClient
    sink: Sink
    traffic: Traffic
    changes: Changes
    rand: random.Random
    kind: Kind
    faults: list[float] = field(default_factory=list)
    _signalled: set[int] = field(default_factory=set)

    @property
    def asked(self) -> Asked:
        port = urlsplit(self.mesh.endpoints["metrics"]).port or 0
        return Asked(port, MeshClient.find(self.mesh.data_dir).token)

    async def subscribe(self) -> None:
        """One in order, as far as the channel keeps it, one in none, and one so slow that there are always events that wait for it."""
        await self.changes.subscribe("ordered", ordered=True)
        await self.changes.subscribe("unordered")
        slow = await self.changes.subscribe("slow", ordered=True)
        self.sink.always(slow.path, Answer().after(0.03))

    def fault(self) -> None:
        """Something is about to be done: what was delivered from shortly before it on may come again."""
        self.faults.append(time.monotonic())

    async def pids(self, count: int = 1) -> list[int]:
        """Of the data-plane processes, as soon as there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await asyncio.to_thread(self.mesh.pids, DATA_PLANE)) < count:
                await asyncio.sleep(0.05)
        return found

    async def signal_data_plane(self, number: int = signal.SIGKILL, workers: int = 1) -> None:
        """To one of them, once there are so many that go on. The supervisor starts the next one."""
        async with asyncio.timeout(PATIENCE_S):
            while len(fresh := set(await self.pids(workers)) - self._signalled) < workers:
                await asyncio.sleep(0.05)
        self.fault()
        pid = self.rand.choice(sorted(fresh))
        self._signalled.add(pid)
        os.kill(pid, number)

    async def condition(self, type_: str = "Ready") -> Object:
        """A condition of the backing channel; {} where it has none yet, or is not there yet."""
        try:
            found = await self.client.get(self.kind, "default", self.traffic.channel)
        except ObjectNotFoundError:
            return {}
        return condition_of(found, type_) or {}

    async def until_condition(self, status: str, *, type_: str = "Ready", reason: str = "") -> Object:
        """Wait for it; the condition."""
        found: Object = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while found.get("status") != status or (reason and found.get("reason") != reason):
                    await asyncio.sleep(0.05)
                    found = await self.condition(type_)
        except TimeoutError:
            raise AssertionError(f"not {type_}={status} {reason} within {PATIENCE_S} s: {found}") from None
        return found

    @asynccontextmanager
    async def load(self, producers: int = 6) -> AsyncIterator[None]:
        """Events come in for as long as this lasts."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.traffic.run(producers))
            try:
                yield
            finally:
                self.traffic.stop()

    async def until_refused(self) -> None:
        """Wait until the ingress says that it cannot store events: 503, which producers try again."""
        self.traffic.statuses.clear()
        async with asyncio.timeout(PATIENCE_S):
            while 503 not in self.traffic.statuses:
                await asyncio.sleep(0.02)

    async def every_key_taken(self) -> None:
        """Wait until an event of every key, sent from now on, has been accepted: no partition is left out."""
        since, keys = self.traffic.next_number, {each.key for each in self.traffic.sent}
        try:
            async with asyncio.timeout(RECOVERY_S):
                while missing := keys - {each.key for each in self.traffic.sent[since:] if each.receipt}:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"no event of the keys {missing} within {RECOVERY_S} s: {self.traffic.details}") from None

    async def until_delivered(self, count: int, path: str = "") -> None:
        """Wait for so many more accepted deliveries, at the path or anywhere."""
        paths = [path] if path else [each.path for each in self.changes.all]
        wanted = sum(len(self.sink.ids(each)) for each in paths) + count
        await self.sink.until(
            lambda: sum(len(self.sink.ids(each)) for each in paths) >= wanted, within=PATIENCE_S, what=f"{count} more deliveries"
        )

    def check_duplicates(self) -> int:
        """What came again had been delivered within a commit interval of a fault, or after it. Returns how many came again."""
        again = 0
        for receiver in self.changes.all:
            for path in receiver.addresses:
                accepted = self.sink.accepted(path)
                for each in self.sink.at(path):
                    first = accepted.get(each.event_id or "")
                    if first is None or each.at <= first:
                        continue
                    again += 1
                    recent = [at for at in self.faults if at <= each.at <= at + 2 * RECOVERY_S]
                    assert recent, (
                        f"event {each.event_id} came to {path} again at {each.at:.1f}, first {first:.1f}, and there was no fault but at {self.faults}"
                    )
                    early = min(recent) - COMMIT_S - SLACK_S - first
                    assert early <= 0, (
                        f"event {each.event_id} came to {path} again, delivered {early:.1f} s too early for the fault"
                    )
        return again

    async def balance(
        self, *, drops: Collection[str] = (), others: Collection[str] = (), within: float = RECOVERY_S
    ) -> Counter[str]:
        """Nothing accepted is lost, nothing came that should not, each key in its order, and little came twice."""
        await self._quiet(within)  # asking after each event that is only on its way would take longer than it does
        ends = await balance(self.traffic, self.changes.all, self.sink, self.asked, drops=drops, others=others, stored=True)
        ends["again"] = self.check_duplicates()
        print(f"came again: {ends['again']}")
        return ends

    async def recorded(self) -> None:
        """Events come in, are delivered, and that is recorded: none of them may come again, whatever happens next."""
        async with self.load():
            await self.traffic.until(60)
        await self._quiet(PATIENCE_S)
        await asyncio.sleep(COMMIT_S + SLACK_S)

    async def _quiet(self, within: float) -> None:
        """Wait until all that is due has arrived somewhere; at most so long, what is missing then has its own report."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            accepted = self.traffic.accepted
            for receiver in self.changes.all:
                arrived = self.sink.ids(receiver.dead).union(*(self.sink.ids(path) for path in receiver.addresses))
                if not receiver.deleted and any(
                    each.id not in arrived and receiver.state(each.number) == "due" for each in accepted
                ):
                    break
            else:
                return
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """An orderly end; nothing unforeseen was logged."""
        assert await asyncio.to_thread(self.mesh.stop) == 0, self.mesh.log
        assert "Traceback" not in self.mesh.log, self.mesh.log
        assert "was never retrieved" not in self.mesh.log, self.mesh.log


@asynccontextmanager
async def open_rig(
    data: Path,
    seed: int,
    kind: Kind,
    spec: Object,
    objects: Sequence[tuple[Kind, Object]],
    *arguments: str,
    share: float = 0.1,
    delivery: Object | None = None,
    ready: bool = True,
) -> AsyncIterator[Rig]:
    """`objects` are made before the channel. `share` is how often subscribers fail; dead-letter sinks never do. `arguments` are for
    `eventing up`. With `ready` False the channel is asked for and not waited for."""
    rand = random.Random(seed)
    failing = failing_at_random(seed, share, Answer(500), Answer(503), Answer.cut(), Answer.cut(25))
    async with Sink() as sink:
        sink.otherwise(lambda received: Answer() if received.path.startswith("/dead/") else failing(received))
        with Up(data, "--drain-timeout=3", *arguments) as mesh:
            await asyncio.to_thread(mesh.ready)
            client = KubeClient(load_kubeconfig(mesh.data_dir / "kubeconfig"), user_agent="chaos")
            try:
                for kind_of_it, made in objects:
                    await client.create(kind_of_it, made)
                port = urlsplit(mesh.endpoints["ingress"]).port or 0
                traffic = Traffic(
                    port, rand, channel=f"orders-{uuid.uuid4().hex[:8]}", pause_s=0.02, keyed=True, patience_s=RECOVERY_S
                )
                template = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}
                changes = Changes(client, traffic, sink, rand, backing=kind, template=template, delivery=delivery or DELIVERY)
                await changes.make_channel(ready=ready)
                yield Rig(mesh, client, sink, traffic, changes, rand, kind)
            finally:
                await client.aclose()
