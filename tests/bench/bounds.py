"""What the mesh must not do to others, nor to the machine: a stuck subscriber, overload, many channels.

Sections of `make bench`; alone: `python -m tests.bench.bounds [isolation] [overload] [many-channels]`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from tests.bench.configuring import ConfiguredMesh, Entrance, Silence, subscription_to
from tests.bench.processes import MEMORY, memory_kib
from tests.bench.report import grid
from tests.bench.rounds import Latency, Range, Rig, latencies
from tests.bench.systems import Case, System, python

__all__ = ["BOUNDS"]

T = TypeVar("T")

RATE = 1000  # events per second offered beside a stuck subscriber
P99_GOAL = 2.0
OVERLOAD_MB = 150
OVERLOAD_S = 60.0
CHANNELS = 1000
CHANNELS_MB = 100
FLOOD_S = 3.0
PRODUCERS = 64
ENDED = "eventing_delivery_events_total"


@dataclass(frozen=True, slots=True)
class Isolation:
    """Rounds of latency by channel: `free` without a stuck subscriber, the others with one among ten."""

    rounds: dict[str, list[Latency]]

    def ratio(self, name: str) -> Range:
        return Range.of([it.p99 / free.p99 for it, free in zip(self.rounds[name], self.rounds["free"], strict=True)])


@dataclass(frozen=True, slots=True)
class Overload:
    seconds: float
    answers: dict[str, int]  # of the ingress, by status
    ended: dict[str, int]  # deliveries by end, or by the reason of a drop
    pending: int
    series_kib: tuple[int, ...]  # the data plane's memory, twice a second

    @property
    def halfway_kib(self) -> int:
        return max(self.series_kib[: len(self.series_kib) // 2])

    @property
    def peak_kib(self) -> int:
        return max(self.series_kib)


@dataclass(frozen=True, slots=True)
class ManyChannels:
    number: int
    ready_s: float
    before: dict[str, int]
    after: dict[str, int]
    used: dict[str, int]  # once an event has come through each of them

    @property
    def cost_kib(self) -> int:
        return max(sum(self.after.values()), sum(self.used.values())) - sum(self.before.values())


def isolation(rig: Rig, directory: Path, rounds: int, seconds: float, flood_s: float) -> Isolation:
    """Ten subscribers each: all well; one stuck at the origin of the others; one stuck at an origin of its own."""
    silence = Silence()
    sink = f"http://127.0.0.1:{rig.port}"
    stuck = {"free": f"{sink}/free/s9", "beside": f"{sink}/stuck", "apart": silence.url}
    subscriptions = [
        subscription_to(channel, f"{channel}-{number}", f"{sink}/{channel}/s{number}" if number < 9 else stuck[channel])
        for channel in stuck
        for number in range(10)
    ]
    try:
        with ConfiguredMesh(rig.port, directory) as mesh:
            mesh.apply(list(stuck), subscriptions)
            for channel in ("beside", "apart"):  # the stuck ones are as far behind as they may be, and overflow from now on
                with Flood(rig, mesh.entrance(channel)):
                    time.sleep(flood_s)
                settled(mesh)
            found: dict[str, list[Latency]] = {channel: [] for channel in stuck}
            for number in range(rounds):
                for channel in _turned(list(stuck), number):
                    system: list[System] = [mesh.entrance(channel)]
                    case = Case(10 if channel == "free" else 9, 512)
                    found[channel] += latencies(rig, system, case, RATE, 1, 0.5, seconds)[channel]
    finally:
        silence.close()
    return Isolation(found)


def settled(mesh: ConfiguredMesh) -> None:
    """Wait until the well subscribers have got what they still have to get."""
    ended = -1
    while (now := sum(mesh.figures(ENDED).values())) != ended:
        ended = now
        time.sleep(1.0)


def _turned(names: list[str], number: int) -> list[str]:
    turn = number % len(names)
    return names[turn:] + names[:turn]


def overload(rig: Rig, directory: Path, seconds: float) -> Overload:
    """64 producers send as fast as they are answered, to ten subscribers of which one is stuck."""
    sink = f"http://127.0.0.1:{rig.port}"
    paths = [*(f"flood/s{number}" for number in range(9)), "stuck"]
    subscriptions = [subscription_to("flood", f"flood-{number}", f"{sink}/{path}") for number, path in enumerate(paths)]
    with ConfiguredMesh(rig.port, directory) as mesh:
        mesh.apply(["flood"], subscriptions)
        series = []
        with Flood(rig, mesh.entrance("flood")) as load:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.5)
                series.append(memory_kib(mesh.pid))
        settled(mesh)
        series.append(memory_kib(mesh.pid))
        ended = mesh.figures(ENDED)
        pending = sum(mesh.figures("eventing_subscription_pending_events").values())
    due = load.statuses.get("202", 0) * len(paths)
    if sum(ended.values()) + pending != due:
        raise RuntimeError(f"of {due} deliveries that were due {ended} ended and {pending} are pending: the rest is lost")
    return Overload(seconds, load.statuses, ended, pending, tuple(series))


class Flood:
    """A load generator that sends whenever it is answered, whatever is delivered."""

    def __init__(self, rig: Rig, entrance: Entrance) -> None:
        self.statuses: dict[str, int] = {}
        where = ("--port", str(entrance.port), "--path", entrance.path, "--connections", str(PRODUCERS))
        self._load = python(*rig.ways, *where, "--window", "1000000000", "--drain", "0.5", module="load")

    def __enter__(self) -> Self:
        assert self._load.stdout is not None
        if self._load.stdout.readline() != "ready\n":
            raise RuntimeError("the load generator did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._load.terminate()
        said, _rest = self._load.communicate(timeout=60)
        self.statuses = json.loads(said)["statuses"]


def many_channels(rig: Rig, directory: Path, number: int) -> ManyChannels:
    sink = f"http://127.0.0.1:{rig.port}"
    names = [f"channel-{each}" for each in range(number)]
    with ConfiguredMesh(rig.port, directory) as mesh:
        before = mesh.memory_kib()
        ready_s = mesh.apply(names, [subscription_to(name, f"to-{name}", f"{sink}/many/{name}") for name in names])
        after = mesh.memory_kib()
        reached = mesh.send_to_each(names, rig)
        if reached != number:
            raise RuntimeError(f"an event to each of {number} channels reached {reached} subscribers")
        return ManyChannels(number, ready_s, before, after, mesh.memory_kib())


def isolation_section(quick: bool) -> list[str]:
    """The part of docs/benchmarks.md, as for the other two."""
    found = _measured(
        lambda rig, directory: isolation(rig, directory, 1 if quick else 5, 0.8 if quick else 2.0, 0.5 if quick else FLOOD_S)
    )
    free = Range.of([one.p99 for one in found.rounds["free"]])
    rows = [("none of ten", f"{free.middle:.1f} ({free.low:.1f} to {free.high:.1f})", "1")]
    for name, shown in (("beside", "one of ten, at the origin of the others"), ("apart", "one of ten, at an origin of its own")):
        p99, ratio = Range.of([one.p99 for one in found.rounds[name]]), found.ratio(name)
        times = f"{ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        rows.append((shown, f"{p99.middle:.1f} ({p99.low:.1f} to {p99.high:.1f})", times))
    return _shown(
        "## A stuck subscriber among ten",
        "",
        f"{RATE:,} events/s to ten subscribers each, rounds in turns; p99 of those who are well. A stuck subscriber takes requests",
        f"and never answers; it is as far behind as it may be, and overflows. Goal: at most {P99_GOAL:g} times.",
        "",
        *grid(("stuck", "p99 of the others, ms", "ratio"), rows),
    )


def overload_section(quick: bool) -> list[str]:
    flood = _measured(lambda rig, directory: overload(rig, directory, 3.0 if quick else OVERLOAD_S))
    rows = [
        ("answers of the ingress", ", ".join(f"{count:,} with {status}" for status, count in sorted(flood.answers.items()))),
        ("deliveries that ended", ", ".join(f"{count:,} {end}" for end, count in flood.ended.items())),
        ("pending at the end, at the stuck one", f"{flood.pending:,}"),
        ("data plane, first half, at most", f"{flood.halfway_kib / 1024:.0f} MB"),
        ("data plane, at most", f"{flood.peak_kib / 1024:.0f} MB (limit {OVERLOAD_MB})"),
    ]
    return _shown(
        "## Overload",
        "",
        f"{PRODUCERS} producers send as fast as they are answered for {flood.seconds:g} s, to ten subscribers of which one is stuck.",
        "Every delivery that was due has ended, or is pending, when it is over: the run fails otherwise.",
        "",
        *grid(("what", "figure"), rows),
    )


def many_channels_section(quick: bool) -> list[str]:
    many = _measured(lambda rig, directory: many_channels(rig, directory, 50 if quick else CHANNELS))
    rows = [
        (what, f"{sum(processes.values()) / 1024:.0f}", ", ".join(f"{name} {kib / 1024:.0f}" for name, kib in processes.items()))
        for what, processes in (
            ("before", many.before), ("with the channels", many.after), ("an event through each", many.used)
        )
    ]  # fmt: skip
    rows.append(("what they cost", f"{many.cost_kib / 1024:.0f} (limit {CHANNELS_MB})", ""))
    return _shown(
        f"## {many.number:,} channels",
        "",
        f"Each with one Subscription, applied through the API: all Ready after {many.ready_s:.0f} s.",
        "",
        *grid((MEMORY, "MB", "by process"), rows),
    )


def _measured(what: Callable[[Rig, Path], T]) -> T:
    with tempfile.TemporaryDirectory(prefix="eventing-bench-") as directory:
        rig = Rig(Path(directory))
        try:
            return what(rig, Path(directory) / "mesh")
        finally:
            rig.close()


def _shown(*lines: str) -> list[str]:
    print("\n".join(lines), end="\n\n", flush=True)
    return [*lines, ""]


BOUNDS: Final = {"isolation": isolation_section, "overload": overload_section, "many-channels": many_channels_section}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="|".join(BOUNDS))
    options = parser.parse_args()
    for name in options.sections or BOUNDS:
        BOUNDS[name](os.environ.get("EVENTING_BENCH_QUICK", "") not in {"", "0"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
