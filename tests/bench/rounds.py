"""One measurement: a system, a case, a load, for so many seconds; and many of them, interleaved."""

import json
import signal
import statistics
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

from tests.bench.board import ACCEPTED, DELIVERED, RECORDING, create_board
from tests.bench.processes import cpu_ns
from tests.bench.systems import Case, System, python, read_port

__all__ = ["Latency", "Range", "Rig", "Throughput", "UnaccountedError", "latencies", "throughputs"]

T = TypeVar("T")
_TRIES = 3
_PATIENCE_S = 120.0
_STARTED = 300  # deliveries after which a round from stock is under way
PRODUCERS = 64  # connections of the open loop


@dataclass(frozen=True, slots=True)
class Throughput:
    """One closed-loop round of one system. Where nothing is to be delivered (fan-out 0), an acceptance counts as a delivery."""

    deliveries_per_s: float
    cpu_us: float  # per delivery, of the process under test
    busy: float  # share of one core that it had meanwhile


@dataclass(frozen=True, slots=True)
class Latency:
    """One open-loop round: from the moment an event was due to its arrival at a subscriber, in ms."""

    rate: int  # events per second offered
    p50: float
    p99: float
    cpu_us: float
    late_ms: float  # how late the generator's own clock was at worst


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Range":
        return cls(min(values), statistics.median(values), max(values))


class UnaccountedError(RuntimeError):
    """What was sent is not what arrived, or was not taken."""


class Rig:
    """The sink, the board and the doorbell: what all measurements share."""

    def __init__(self, directory: Path) -> None:
        self.board = create_board(directory / "board")
        self.ways = ("--board", str(directory / "board"), "--doorbell", str(directory / "bell"))
        self._sink = python(*self.ways, module="sink")
        self.port = read_port(self._sink)

    def report(self) -> dict[str, dict[str, int] | float | None]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=30) as answer:
            found: dict[str, dict[str, int] | float | None] = json.load(answer)
            return found

    def throughput(self, system: System, case: Case, warm_up_s: float, seconds: float) -> Throughput:
        load = self._load(system, case, "--window", str(case.window), "--connections", str(max(case.window, 8)))
        time.sleep(warm_up_s)
        counted = DELIVERED if case.fan_out else ACCEPTED
        begin = self.sample(system, counted)
        time.sleep(seconds)
        elapsed, cpu, deliveries = (b - a for a, b in zip(begin, self.sample(system, counted), strict=True))
        self._finish(load, system, case)
        if deliveries == 0:
            raise RuntimeError(f"{system.name}: nothing was delivered in {seconds} s ({case})")
        return Throughput(deliveries / elapsed * 1e9, cpu / deliveries / 1e3, cpu / elapsed)

    def latency(self, system: System, case: Case, rate: int, warm_up_s: float, seconds: float) -> Latency:
        load = self._load(system, case, "--rate", str(rate), "--connections", str(PRODUCERS))
        time.sleep(warm_up_s)
        begin = self.sample(system)
        self.board[RECORDING] = 1
        time.sleep(seconds)
        self.board[RECORDING] = 0
        _, cpu, deliveries = (b - a for a, b in zip(begin, self.sample(system), strict=True))
        result, report = self._finish(load, system, case)
        p50, p99 = report["p50_ms"], report["p99_ms"]
        if not isinstance(p50, float) or not isinstance(p99, float):
            raise TypeError(f"{system.name}: nothing arrived at {rate} events/s ({case})")
        return Latency(rate, p50, p99, cpu / max(deliveries, 1) / 1e3, result["late_ms"])

    def from_stock(self, system: System, stock: int, warm_up_s: float, seconds: float) -> Throughput:
        """The rate at which a system delivers what is there already, `stock` events; it has just been started. Measured for less
        time where that is nearly gone before."""
        board = self.board
        base = board[DELIVERED]
        patience = time.monotonic() + _PATIENCE_S
        while board[DELIVERED] < base + _STARTED:
            if time.monotonic() > patience:
                raise RuntimeError(f"{system.name}: {board[DELIVERED] - base} deliveries within {_PATIENCE_S:g} s")
            time.sleep(0.005)
        self._until(warm_up_s, base + stock * 0.3)
        before = self.sample(system)
        self._until(seconds, base + stock * 0.95)
        elapsed, cpu, deliveries = (b - a for a, b in zip(before, self.sample(system), strict=True))
        if deliveries <= 0:
            raise RuntimeError(f"{system.name}: nothing more was delivered in {elapsed / 1e9:.1f} s")
        return Throughput(deliveries / elapsed * 1e9, cpu / deliveries / 1e3, cpu / elapsed)

    def _until(self, seconds: float, delivered: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.board[DELIVERED] < delivered:
            time.sleep(min(left, 0.005))

    def _load(self, system: System, case: Case, *options: str) -> "Popen[str]":
        self.report()
        same = ("--port", str(system.port), "--path", system.path, "--fan-out", str(case.fan_out), "--size", str(case.size))
        if case.kind == "structured":
            options = (*options, "--structured")
        load = python(*self.ways, *same, *options, module="load")
        assert load.stdout is not None
        if load.stdout.readline() != "ready\n":
            load.kill()
            raise RuntimeError(f"{system.name}: the load generator did not start")
        return load

    def sample(self, system: System, counted: int = DELIVERED) -> tuple[int, int, int]:
        """Now, the CPU time of the system and what the board has counted, times in ns."""
        try:
            return time.monotonic_ns(), cpu_ns(system.pid), self.board[counted]
        except (FileNotFoundError, ProcessLookupError) as error:
            raise RuntimeError(f"{system.name}: process {system.pid} ended while it was measured") from error

    def _finish(
        self, load: "Popen[str]", system: System, case: Case
    ) -> tuple[dict[str, float], dict[str, dict[str, int] | float | None]]:
        """End the load and account for every event: a system that loses or refuses some has not done the work."""
        load.send_signal(signal.SIGTERM)
        said, _ = load.communicate(timeout=60)
        result = json.loads(said)
        report = self.report()
        counts = report["counts"]
        assert isinstance(counts, dict)
        arrived = sum(counts.values())
        due = result["accepted"] * case.fan_out
        if arrived != due or result["unfinished"] or set(result["statuses"]) - {"202"}:
            raise UnaccountedError(
                f"{system.name}, {case}: of {result['sent']} events sent {result['accepted']} were accepted (answers by "
                f"status: {result['statuses']}; 0 is a lost connection), {due} deliveries were due and {arrived} arrived"
            )
        return result, report

    def close(self) -> None:
        self._sink.terminate()
        self._sink.wait()
        if self._sink.stdout is not None:
            self._sink.stdout.close()


def throughputs(
    rig: Rig, systems: list[System], case: Case, rounds: int, warm_up_s: float, seconds: float, *, patient: bool = False
) -> dict[str, list[Throughput]]:
    """Every system once per round, each round beginning with another, so that a busy minute falls on all of them.

    `patient`: a round in which not every event arrived exactly once is played again, as in `latencies`. Through a broker events may
    come twice, and on a machine that stands still some do."""
    found: dict[str, list[Throughput]] = {system.name: [] for system in systems}
    for number in range(rounds):
        turn = number % len(systems)
        for system in systems[turn:] + systems[:turn]:
            tries = _TRIES if patient else 1
            found[system.name].append(_again(tries, lambda system=system: rig.throughput(system, case, warm_up_s, seconds)))  # type: ignore[misc]
    return found


def latencies(
    rig: Rig, systems: list[System], case: Case, rate: int, rounds: int, warm_up_s: float, seconds: float
) -> dict[str, list[Latency]]:
    """As `throughputs`, at a fixed rate of events."""
    found: dict[str, list[Latency]] = {system.name: [] for system in systems}
    for number in range(rounds):
        turn = number % len(systems)
        for system in systems[turn:] + systems[:turn]:
            found[system.name].append(_patiently(rig, system, case, rate, warm_up_s, seconds))
    return found


def _patiently(rig: Rig, system: System, case: Case, rate: int, warm_up_s: float, seconds: float) -> Latency:
    """A round at a fixed rate; again, and said so, where not all arrived: on a machine that stands still for a third of a second, 10 KB
    events that come in meanwhile are more than a subscription may be behind, and overflow as they should."""
    return _again(_TRIES, lambda: rig.latency(system, case, rate, warm_up_s, seconds))


def _again(tries: int, measured: Callable[[], T]) -> T:
    for _ in range(tries - 1):
        try:
            return measured()
        except UnaccountedError as error:
            print(f"again, since {error}", flush=True)
    return measured()
