"""What is measured: started as its users start it, found by its process id, stopped again."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.processes import command_line, descendants

__all__ = ["Case", "FloorSystem", "MeshSystem", "System", "probe", "python", "read_port"]

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. `window` bounds the events on their way in the closed loop. A fan-out of 0: they are accepted, no more.

    `kind`: plain | kafka (the events go through Kafka) | structured (the events come in structured mode) | headers, unique (the answers have five headers, the same ones or
    one that is new each time) | replies (the answers are events, which go to a reply address)."""

    fan_out: int
    size: int
    kind: str = "plain"

    @property
    def window(self) -> int:
        if self.kind == "kafka":
            return 256  # an acceptance takes Kafka's round trip, whatever the load
        return 32 if self.fan_out == 1 else 25 if self.fan_out <= 10 else 8

    @property
    def path(self) -> str:
        """Prefix of the sink's paths: one path per subscriber. The sink tells by it what to answer."""
        return f"{self.channel}/s"

    @property
    def channel(self) -> str:
        return f"fan-{self.fan_out}" if self.kind in {"plain", "structured"} else f"{self.kind}-{self.fan_out}"

    def __str__(self) -> str:
        size = f"{self.size / 1024:g} KB"
        return f"fan-out {self.fan_out}, {size}" + (f", {self.kind}" if self.kind != "plain" else "")


class System(Protocol):
    """`pid` is the process whose CPU time counts; `port` and `path` take events of the case under way."""

    name: str
    pid: int
    port: int
    path: str

    def prepare(self, case: Case) -> None:
        """Be ready for this case."""

    def pids(self) -> list[int]:
        """Every process of the system."""

    def close(self) -> None: ...


def python(*arguments: str, module: str, stdout: int | None = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", f"tests.bench.{module}", *arguments], cwd=ROOT, stdout=stdout, text=True)


def read_port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.strip().isdigit():
        raise RuntimeError(f"{process.args!r} did not start: it said {line!r}")
    return int(line)


def _end(process: "subprocess.Popen[str]", patience_s: float) -> None:
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class FloorSystem:
    """A floor, started anew for each case."""

    path = "/"

    def __init__(self, name: str, sink: int, *options: str) -> None:
        self.name = name
        self.pid = 0
        self.port = 0
        self._sink = sink
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def prepare(self, case: Case) -> None:
        self.close()
        wanted = ("--sink", str(self._sink), "--fan-out", str(case.fan_out), "--path", case.path)
        self._process = python(*wanted, *self._options, module="floor")
        self.port = read_port(self._process)
        self.pid = self._process.pid

    def pids(self) -> list[int]:
        return [self.pid]

    def close(self) -> None:
        if self._process is not None:
            _end(self._process, 5)
            self._process = None


class MeshSystem:
    """`eventing up` with these options on a fresh data directory with one channel per case, all its subscribers at the sink."""

    def __init__(self, name: str, sink: int, directory: Path, cases: list[Case], concurrency: int, *options: str) -> None:
        self.name = name
        self._sink = sink
        directory.mkdir(exist_ok=True)
        self._log = (directory / "mesh.log").open("w+")
        manifest = directory / "bench.yaml"
        channels = {case.channel: case for case in cases}
        manifest.write_text("---\n".join(_manifests(case, sink, concurrency) for case in channels.values()))
        data = directory / "data"
        command = [sys.executable, "-m", "eventing", "up", "--data-dir", str(data), "-f", str(manifest), *options]
        for port in ("--api-port", "--ingress-port", "--metrics-port"):
            command += [port, "0"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENTING_")}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self._log, stderr=subprocess.STDOUT, text=True
        )
        self.pid = 0
        self.port = 0
        self.path = ""
        begin = time.monotonic()
        while not (data / "endpoints.json").exists():
            self._still_waiting(begin, "it never became ready")
        self.start_s = time.monotonic() - begin
        ingress = json.loads((data / "endpoints.json").read_text())["ingress"]
        self.port = urlsplit(ingress).port or 80
        self.pid = self._data_plane()

    def _still_waiting(self, begin: float, complaint: str) -> None:
        if self._process.poll() is None and time.monotonic() < begin + START_S:
            time.sleep(0.05)
            return
        self._log.seek(0)
        tail = self._log.read()[-3000:]
        self.close()
        raise RuntimeError(f"the mesh cannot be measured, {complaint}. What it said last:\n{tail}")

    def _data_plane(self) -> int:
        """The child that moves events; the one process where all roles are in one."""
        for pid in self.pids():
            command = command_line(pid).replace("-", "").replace("_", "")
            if "dataplane" in command:
                return pid
        return self._process.pid

    def prepare(self, case: Case) -> None:
        """Wait until a probe reaches every subscriber of the case's channel."""
        self.path = f"/default/{case.channel}"
        begin = time.monotonic()
        while True:
            _sink_report(self._sink)
            try:
                probe(self.port, self.path)
            except (urllib.error.URLError, ConnectionError):
                self._still_waiting(begin, f"its channel {self.path} takes no events")
                continue
            patience = time.monotonic() + 2.0
            reached = 0
            while reached < case.fan_out and time.monotonic() < patience:
                time.sleep(0.05)
                reached += len(_sink_report(self._sink)["counts"])
            if reached == case.fan_out:
                return
            self._still_waiting(begin, f"a probe reached {reached} of {case.fan_out} subscribers of {self.path}")

    def pids(self) -> list[int]:
        return descendants(self._process.pid)

    def close(self) -> None:
        _end(self._process, 20)
        self._log.close()


def probe(port: int, path: str) -> None:
    """Send one event. Raises urllib.error.URLError, ConnectionError."""
    headers = {"ce-specversion": "1.0", "ce-type": "bench.probe", "ce-source": "/bench", "ce-id": "probe",
               "content-type": "application/json"}  # fmt: skip
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b'{"at":"%020d"}' % 0, headers, method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()


def _sink_report(port: int) -> dict[str, dict[str, int]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        found: dict[str, dict[str, int]] = json.load(answer)
        return found


def _manifests(case: Case, sink: int, concurrency: int) -> str:
    name = case.channel
    reply = f'  reply: {{uri: "http://127.0.0.1:{sink}/taken"}}\n' if case.kind == "replies" else ""
    channel = f"apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {{name: {name}, namespace: default}}\n"
    return channel + "".join(
        f"""---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata:
  name: {name}-{number}
  namespace: default
  annotations: {{eventing-mesh.dev/concurrency: "{concurrency}"}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {name}}}
  subscriber: {{uri: "http://127.0.0.1:{sink}/{name}/s{number}"}}
{reply}"""
        for number in range(case.fan_out)
    )
