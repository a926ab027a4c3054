"""What the control plane costs: the start, a large file, a change, many objects and many watchers.

A section of `make bench`; alone: `python -m tests.bench.control_plane`.
"""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import aiohttp

from eventing.kube import KubeClient
from eventing.kube.cluster import Cluster, load_kubeconfig
from eventing.resources.conditions import condition_of
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from tests.bench.processes import MEMORY, command_line, cpu_ns, memory_kib
from tests.bench.report import grid
from tests.bench.rounds import Range
from tests.bench.systems import MeshSystem
from tests.support.manifests import CHANNEL as CHANNEL_YAML
from tests.support.manifests import channel_object, subscription

__all__ = ["section"]

START_GOAL_S = 2.0
FILE_GOAL_S = 10.0
LIST_GOAL_S = 1.0
CHANGE_GOAL_MS = 50.0
WATCHERS_GOAL_MB = 150
WATCHERS: Final = 50
PER_CHANNEL: Final = 100
NOWHERE: Final = "http://localhost:9/"
_AT_A_TIME: Final = 16
_PATIENCE_S: Final = 400.0
_LIST: Final = f"{SUBSCRIPTION.path}/namespaces/default/{SUBSCRIPTION.plural}"


@dataclass(frozen=True, slots=True)
class File:
    """One file of Subscriptions to one channel, given to kubectl."""

    number: int
    applied_s: float
    ready_s: float  # from the start of kubectl until all are Ready
    kubectl_cpu_s: float
    control_cpu_s: float


@dataclass(frozen=True, slots=True)
class Many:
    """Many Subscriptions, 100 to a channel, and watchers who get all of them and every change."""

    number: int
    ready_s: float
    list_s: list[float]
    list_cpu_ms: float
    list_mb: float
    idle_kib: int  # of the control process, without objects
    settled_kib: int
    watched_kib: int
    peak_kib: int
    change_cpu_ms: float  # of the control process, one change to all watchers


class Mesh:
    """`eventing up` without anything in it. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._system = MeshSystem("mesh", 0, directory, [], 10)
        self.kubeconfig = directory / "data" / "kubeconfig"
        self.start_s = self._system.start_s
        self.start_cpu_s = sum(map(cpu_ns, self._system.pids())) / 1e9
        self.control = next(pid for pid in self._system.pids() if "control:Control" in command_line(pid))

    @property
    def cluster(self) -> Cluster:
        return load_kubeconfig(self.kubeconfig)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._system.close()


def starts(directory: Path, rounds: int) -> tuple[Range, Range]:
    """From `eventing up` on a fresh data directory until it is ready: seconds, and CPU seconds of all its processes."""
    seconds, cpu_s = [], []
    for number in range(rounds):
        with Mesh(directory / f"start-{number}") as mesh:
            seconds.append(mesh.start_s)
            cpu_s.append(mesh.start_cpu_s)
    return Range.of(seconds), Range.of(cpu_s)


def file(directory: Path, number: int, kubectl: str) -> File:
    manifest = directory / "subscriptions.yaml"
    each = [subscription(NOWHERE).replace("name: printer", f"name: s{index}") for index in range(number)]
    manifest.write_text("---\n".join([CHANNEL_YAML, *each]))
    with Mesh(directory / "file") as mesh:
        environment = {**os.environ, "KUBECONFIG": str(mesh.kubeconfig), "HOME": str(directory)}
        before, ours = _children_cpu_s(), cpu_ns(mesh.control)
        begin = time.monotonic()
        subprocess.run([kubectl, "apply", "-f", manifest], env=environment, check=True, stdout=subprocess.DEVNULL)
        applied_s, kubectl_cpu_s = time.monotonic() - begin, _children_cpu_s() - before
        asyncio.run(_until_ready(mesh, number))
        ready_s = time.monotonic() - begin
        return File(number, applied_s, ready_s, kubectl_cpu_s, (cpu_ns(mesh.control) - ours) / 1e9)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _until_ready(mesh: Mesh, number: int, every_s: float = 0.2) -> None:
    client = KubeClient(mesh.cluster, user_agent="bench")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                found = (await client.list(SUBSCRIPTION))[0]
                if len(found) == number and all((condition_of(obj) or {}).get("status") == "True" for obj in found):
                    return
                await asyncio.sleep(every_s)
    finally:
        await client.aclose()


def changes(directory: Path, number: int) -> Range:
    """Milliseconds from the 200 of a change of a Subscription until the report that the data plane has applied it is read."""
    with Mesh(directory / "changes") as mesh:
        return Range.of(asyncio.run(_changes(mesh, number)))


async def _changes(mesh: Mesh, number: int) -> list[float]:
    client = KubeClient(mesh.cluster, user_agent="bench")
    try:
        await client.create(CHANNEL, _in_default(channel_object("orders")))
        await client.create(SUBSCRIPTION, _subscription("s", "orders"))
        await _until_ready(mesh, 1)
        _, version = await client.list(DATA_PLANE, DATA_PLANE_NAMESPACE)
        generations: asyncio.Queue[int] = asyncio.Queue()
        following = asyncio.create_task(_follow(client, version, generations))
        found = []
        for turn in range(number):
            body = {"spec": {"delivery": {"retry": turn}}}
            await client.patch(SUBSCRIPTION, "default", "s", body)
            begin = time.perf_counter()
            async with asyncio.timeout(10):
                await generations.get()
            found.append((time.perf_counter() - begin) * 1e3)
            await asyncio.sleep(0.05)
        following.cancel()
        return found
    finally:
        await client.aclose()


async def _follow(client: KubeClient, version: str, generations: "asyncio.Queue[int]") -> None:
    last = 0
    async for _, obj in client.watch(DATA_PLANE, DATA_PLANE_NAMESPACE, resource_version=version, timeout_s=300):
        for applied in ((obj.get("status") or {}).get("applied") or {}).values():
            if applied["generation"] > last:
                last = applied["generation"]
                generations.put_nowait(last)


def many(directory: Path, number: int) -> Many:
    with Mesh(directory / "many") as mesh:
        time.sleep(1.0)
        idle_kib = memory_kib(mesh.control)
        ready_s = asyncio.run(_make(mesh, number))
        time.sleep(2.0)
        settled_kib = memory_kib(mesh.control)
        return asyncio.run(_look(mesh, number, ready_s, idle_kib, settled_kib))


async def _make(mesh: Mesh, number: int) -> float:
    client = KubeClient(mesh.cluster, user_agent="bench")
    channels = -(-number // PER_CHANNEL)
    turn = asyncio.Semaphore(_AT_A_TIME)

    async def make(index: int) -> None:
        async with turn:
            await client.create(SUBSCRIPTION, _subscription(f"s{index}", f"c{index % channels}"))

    begin = time.monotonic()
    try:
        for index in range(channels):
            await client.create(CHANNEL, _in_default(channel_object(f"c{index}")))
        await asyncio.gather(*map(make, range(number)))
    finally:
        await client.aclose()
    await _until_ready(mesh, number, 3.0)
    return time.monotonic() - begin


async def _look(mesh: Mesh, number: int, ready_s: float, idle_kib: int, settled_kib: int) -> Many:
    cluster = mesh.cluster
    connector = aiohttp.TCPConnector(ssl=cluster.ssl_context(), limit=0)
    headers = {"Authorization": f"Bearer {cluster.bearer()}"}
    async with aiohttp.ClientSession(cluster.server, connector=connector, headers=headers) as session:
        list_s, cpu_ms, size = [], [], 0
        for _ in range(5):
            begin, cpu = time.perf_counter(), cpu_ns(mesh.control)
            async with session.get(_LIST) as response:
                size = len(await response.read())
            list_s.append(time.perf_counter() - begin)
            cpu_ms.append((cpu_ns(mesh.control) - cpu) / 1e6)
        got = [0] * WATCHERS
        watching = [asyncio.create_task(_watch(session, got, index)) for index in range(WATCHERS)]
        peak_kib = await _until_all(mesh, got, number)
        cpu = cpu_ns(mesh.control)
        rounds = 20
        for turn in range(rounds):
            patch = {"metadata": {"labels": {"turn": str(turn)}}}
            content = {"Content-Type": "application/merge-patch+json"}
            async with session.patch(f"{_LIST}/s0", json=patch, headers=content) as response:
                response.raise_for_status()
            await _until_all(mesh, got, number + turn + 1)
        change_cpu_ms = (cpu_ns(mesh.control) - cpu) / 1e6 / rounds
        await asyncio.sleep(1.0)
        watched_kib = memory_kib(mesh.control)
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
    return Many(
        number, ready_s, list_s, Range.of(cpu_ms).middle, size / 1e6, idle_kib, settled_kib, watched_kib, peak_kib, change_cpu_ms
    )


async def _watch(session: aiohttp.ClientSession, got: list[int], index: int) -> None:
    params = {"watch": "true", "resourceVersion": "0"}
    async with session.get(_LIST, params=params, timeout=aiohttp.ClientTimeout(total=None)) as response:
        async for chunk in response.content.iter_any():
            got[index] += chunk.count(b"\n")


async def _until_all(mesh: Mesh, got: Sequence[int], number: int) -> int:
    """The most that the control process held until every watcher had so many events."""
    peak_kib = 0
    async with asyncio.timeout(_PATIENCE_S):
        while min(got) < number:
            await asyncio.sleep(0.02)
            peak_kib = max(peak_kib, memory_kib(mesh.control))
    return peak_kib


def _in_default(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "namespace": "default"}}


def _subscription(name: str, channel: str) -> Object:
    return {
        "apiVersion": SUBSCRIPTION.api_version,
        "kind": SUBSCRIPTION.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "channel": {"apiVersion": CHANNEL.api_version, "kind": CHANNEL.kind, "name": channel},
            "subscriber": {"uri": NOWHERE},
        },
    }


def section(quick: bool) -> list[str]:
    """The part of docs/benchmarks.md."""
    kubectl = os.environ.get("KUBECTL", "").partition(os.pathsep)[0] or shutil.which("kubectl")  # the first of several
    rows: list[tuple[str, str, str]] = []

    def row(what: str, goal: str, figure: str) -> None:
        rows.append((what, goal, figure))
        print(f"{what}: {figure} (goal {goal})", flush=True)

    with tempfile.TemporaryDirectory(prefix="eventing-bench-") as name:
        directory = Path(name)
        started, cpu = starts(directory, 1 if quick else 5)
        figure = f"{_shown(started, 's', 2)}, CPU of all its processes {cpu.middle:.2f} s"
        row("`eventing up` to ready", f"≤ {START_GOAL_S:g} s", figure)
        changed = changes(directory, 5 if quick else 50)
        what = "a change of a Subscription, from its 200 until the data plane's report of it is read"
        row(what, f"median ≤ {CHANGE_GOAL_MS:g} ms", _shown(changed, "ms", 1))
        if kubectl:
            one = file(directory, 50 if quick else 1000, kubectl)
            what = f"{one.number:,} Subscriptions in one file, applied with kubectl and all Ready"
            figure = f"{one.ready_s:.1f} s; kubectl took {one.applied_s:.1f} s of it, its own CPU {one.kubectl_cpu_s:.1f} s, "
            row(what, f"≤ {FILE_GOAL_S:g} s", f"{figure}the control process's {one.control_cpu_s:.1f} s")
        lots = many(directory, 300 if quick else 10_000)
        seconds = Range.of(lots.list_s)
        what = f"a list of {lots.number:,} Subscriptions ({lots.list_mb:.1f} MB)"
        row(what, f"≤ {LIST_GOAL_S:g} s", f"{_shown(seconds, 's', 2)}, CPU {lots.list_cpu_ms:.0f} ms")
        what = f"control process with them and {WATCHERS} watchers ({MEMORY})"
        row(what, f"≤ {WATCHERS_GOAL_MB} MB", f"{_mb(lots.watched_kib)}; at most {_mb(lots.peak_kib)} on the way")
        row("… without watchers", "-", _mb(lots.settled_kib))
        row("… without objects", "-", _mb(lots.idle_kib))
        row(f"one change to {WATCHERS} watchers, CPU", "-", f"{lots.change_cpu_ms:.1f} ms")
        row(f"{lots.number:,} Subscriptions made one by one, {PER_CHANNEL} to a channel, all Ready", "-", f"{lots.ready_s:.0f} s")
    lines = ["## The control plane", "", *grid(("what", "goal", "measured"), rows)]
    if not kubectl:
        lines += ["", "There is no kubectl here: the file of Subscriptions was left out."]
    return [*lines, ""]


def _shown(values: Range, unit: str, digits: int) -> str:
    return f"{values.middle:.{digits}f} {unit} ({values.low:.{digits}f} to {values.high:.{digits}f})"


def _mb(kib: int) -> str:
    return f"{kib / 1024:.0f} MB"


def main() -> int:
    found: Any = section(os.environ.get("EVENTING_BENCH_QUICK", "") not in {"", "0"})
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
