"""A mesh that is started empty and configured through its API, as its users do it."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from eventing.kube import KubeClient
from eventing.kube.cluster import load_kubeconfig
from eventing.resources.kinds import Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from tests.bench.processes import command_line, memory_kib
from tests.bench.rounds import Rig
from tests.bench.systems import MeshSystem, probe
from tests.support.manifests import channel_object

__all__ = ["ConfiguredMesh", "Entrance", "Silence", "subscription_to"]

_AT_A_TIME = 16
_PATIENCE_S = 120.0
SETTLE_S = 2.0


class ConfiguredMesh:
    """`eventing up`, then channels and Subscriptions through the API. A context manager."""

    def __init__(self, sink: int, directory: Path, *options: str) -> None:
        self._mesh = MeshSystem("mesh", sink, directory, [], 10, *options)
        self._data = directory / "data"
        endpoints = json.loads((self._data / "endpoints.json").read_text())
        self._metrics = endpoints["metrics"]
        self.port = urlsplit(endpoints["ingress"]).port or 80
        self.pid = self._mesh.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mesh.close()

    def apply(self, channels: Sequence[str], subscriptions: Sequence[Object]) -> float:
        """Make them; how many seconds it took until every Subscription was Ready."""
        begin = time.monotonic()
        asyncio.run(self._apply([channel_object(name) for name in channels], subscriptions))
        return time.monotonic() - begin

    def eventing(self, *arguments: str, text: str = "") -> str:
        """A verb on this mesh, with `text` as its standard input; its output. Raises subprocess.CalledProcessError."""
        command = [sys.executable, "-m", "eventing", *arguments, "--data-dir", str(self._data)]
        return subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE_S).stdout

    async def _apply(self, channels: Sequence[Object], subscriptions: Sequence[Object]) -> None:
        client = KubeClient(load_kubeconfig(self._data / "kubeconfig"), user_agent="bench")
        turn = asyncio.Semaphore(_AT_A_TIME)

        async def create(obj: Object) -> None:
            obj["metadata"]["namespace"] = "default"
            async with turn:
                await client.create(CHANNEL if obj["kind"] == "Channel" else SUBSCRIPTION, obj)

        try:
            await asyncio.gather(*map(create, channels))
            await asyncio.gather(*map(create, subscriptions))
            async with asyncio.timeout(_PATIENCE_S):
                while not all(map(_ready, (await client.list(SUBSCRIPTION))[0])):
                    await asyncio.sleep(0.2)
        finally:
            await client.aclose()

    def entrance(self, channel: str) -> "Entrance":
        return Entrance(channel, self.pid, self.port, f"/default/{channel}")

    def memory_kib(self) -> dict[str, int]:
        """By process, a moment after the last change."""
        time.sleep(SETTLE_S)
        found: dict[str, int] = {}
        for pid in self._mesh.pids():
            command = command_line(pid)
            name = "data plane" if pid == self.pid else "control" if "runtime.control" in command else "supervisor"
            found[name] = found.get(name, 0) + memory_kib(pid)
        return found

    def figures(self, name: str) -> dict[str, int]:
        """The series of this name at the metrics endpoint, summed by reason, else by end, else under ""."""
        with urllib.request.urlopen(f"{self._metrics}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found: dict[str, int] = {}
        for labels, value in re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE):
            named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = named.get("reason") or named.get("end", "")
            if count := int(float(value)):
                found[key] = found.get(key, 0) + count
        return found

    def send_to_each(self, channels: Sequence[str], rig: Rig) -> int:
        """One event to each channel; how many subscribers of the sink got one within the patience."""
        rig.report()
        for channel in channels:
            probe(self.port, f"/default/{channel}")
        reached: set[str] = set()
        patience = time.monotonic() + _PATIENCE_S
        while len(reached) < len(channels) and time.monotonic() < patience:
            counts = rig.report()["counts"]
            assert isinstance(counts, dict)
            reached |= counts.keys()
            time.sleep(0.1)
        return len(reached)


class Entrance:
    """One channel of a mesh, as the load generator takes it for a system."""

    def __init__(self, name: str, pid: int, port: int, path: str) -> None:
        self.name = name
        self.pid = pid
        self.port = port
        self.path = path

    def prepare(self, case: object) -> None:
        """It is ready."""

    def pids(self) -> list[int]:
        return [self.pid]

    def close(self) -> None:
        """It is the mesh's."""


class Silence:
    """An origin that lets everybody connect and never answers: nobody is behind the listening socket."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def close(self) -> None:
        self._listener.close()


def subscription_to(channel: str, name: str, uri: str) -> Object:
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": channel}
    return {
        "apiVersion": "messaging.knative.dev/v1",
        "kind": "Subscription",
        "metadata": {"name": name},
        "spec": {"channel": reference, "subscriber": {"uri": uri}},
    }


def _ready(obj: Object) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
