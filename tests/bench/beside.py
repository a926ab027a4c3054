"""A back end's channel beside bare clients of the same back end: how both are measured, what both have done, and how it is told."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.bench.configuring import ConfiguredMesh, Entrance
from tests.bench.rounds import Range, Rig, Throughput, throughputs
from tests.bench.systems import Case, System, python, read_port

__all__ = ["GOAL", "HEADINGS", "PATIENCE_S", "SIZE", "Beside", "Compared", "said", "shown"]

SIZE: Final = 512  # bytes of an event
GOAL: Final = 0.5  # of what the bare clients do
PATIENCE_S: Final = 120.0
HEADINGS: Final = ("what", "bare, events/s", "mesh, events/s", "mesh to bare", "bare, CPU µs", "mesh, CPU µs")


@dataclass(frozen=True, slots=True)
class Compared:
    """Rounds of the same thing by the bare clients and by the mesh."""

    bare: Sequence[Throughput]
    mesh: Sequence[Throughput]

    def row(self, what: str) -> tuple[str, ...]:
        ratio = Range.of([ours.deliveries_per_s / its.deliveries_per_s for ours, its in zip(self.mesh, self.bare, strict=True)])
        sides = [
            (Range.of([one.deliveries_per_s for one in side]), Range.of([one.cpu_us for one in side]))
            for side in (self.bare, self.mesh)
        ]
        (bare_speed, bare_cpu), (mesh_speed, mesh_cpu) = sides
        return (
            what, shown(bare_speed, ",.0f"), shown(mesh_speed, ",.0f"), shown(ratio, ".0%"),
            shown(bare_cpu, ".0f"), shown(mesh_cpu, ".0f"),
        )  # fmt: skip


class Beside:
    """Rounds by turns, with one load generator and one sink. `plural` is the kind of channel, `module` the bare pair; `where` are
    the options that say to it where the back end is."""

    kind: str
    plural: str
    module: str

    def __init__(self, rig: Rig, where: Sequence[str], *, quick: bool) -> None:
        self.rig = rig
        self.quick = quick
        self.rounds = 1 if quick else 5
        self.seconds = 0.8 if quick else 2.0
        self.warm_up_s = 0.3 if quick else 1.0
        self.stock = 0  # events that are there before they are delivered
        self._where = (*where, "--sink", str(rig.port))

    def accepted(self, bare: System, mesh: System) -> Compared:
        """Accepted per second, with 64 producers that send as soon as they are answered."""
        found = throughputs(self.rig, [bare, mesh], Case(0, SIZE), self.rounds, self.warm_up_s, self.seconds, patient=True)
        return Compared(found[bare.name], found[mesh.name])

    def in_turns(self, bare: Callable[[int], Throughput], mesh: Callable[[int], Throughput]) -> Compared:
        """Each is given the number of the round; who begins changes with it."""
        sides = {"bare": bare, "mesh": mesh}
        found: dict[str, list[Throughput]] = {name: [] for name in sides}
        for number in range(self.rounds):
            for name in sorted(sides, reverse=bool(number % 2)):
                found[name].append(sides[name](number))
        return Compared(found["bare"], found["mesh"])

    def from_stock(self, system: System) -> Throughput:
        """Delivered per second of what is there already."""
        return self.rig.from_stock(system, self.stock, self.warm_up_s, self.seconds)

    @contextmanager
    def bare(self, half: str, *options: str) -> Iterator[Entrance]:
        """The bare pair, or half of it, ready."""
        process = python(half, *self._where, *options, module=self.module)
        try:
            if half == "deliver":
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("the bare consumer did not start")
            port = 0 if half == "deliver" else read_port(process)
            yield Entrance(half, process.pid, port, "/")
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def subscription(self, channel: str, name: str, annotations: dict[str, str]) -> str:
        """Its events go to the sink, at the path of its name."""
        return f"""\
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: {name}, annotations: {json.dumps(annotations)}}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1beta1, kind: {self.kind}, name: {channel}}}
  subscriber: {{uri: "http://127.0.0.1:{self.rig.port}/{name}"}}
---
"""

    def apply(self, mesh: ConfiguredMesh, manifest: str, *, wait: bool = True) -> None:
        """Apply it and wait until all that the mesh has is Ready."""
        mesh.eventing("apply", "-f", "-", text=manifest)
        kinds = f"{self.plural},subscriptions"
        deadline = time.monotonic() + PATIENCE_S
        while wait and not _all_ready(json.loads(mesh.eventing("get", kinds, "-o", "json"))["items"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not Ready within {PATIENCE_S:g} s:\n" + mesh.eventing("get", kinds))
            time.sleep(0.1)


def _all_ready(objects: list[dict[str, dict[str, list[dict[str, str]]]]]) -> bool:
    conditions = [(each.get("status") or {}).get("conditions") or () for each in objects]
    return all(any(one["type"] == "Ready" and one["status"] == "True" for one in each) for each in conditions)


def shown(values: Range, form: str) -> str:
    if values.low == values.high:
        return f"{values.middle:{form}}"
    return f"{values.middle:{form}} ({values.low:{form}} to {values.high:{form}})"


def said(*lines: str) -> list[str]:
    print("\n".join(lines), end="\n\n", flush=True)
    return [*lines, ""]
