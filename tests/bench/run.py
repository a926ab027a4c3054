"""`make bench`: the floor and the mesh, interleaved, and the other sections; prints tables and writes docs/benchmarks.md.

EVENTING_BENCH_QUICK=1 does one short round of one case, and the sections in small. `--prove` measures the harness itself: the floor
against its twin, and against itself slowed by a known amount.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # so that `python tests/bench/run.py` finds its siblings under their one name
    sys.path[0] = str(ROOT)

from tests.bench import control_plane, kafka_channel, rabbitmq_channel, stages
from tests.bench.bounds import BOUNDS
from tests.bench.processes import command_line, memory_kib, peak_memory_kib
from tests.bench.report import (
    BUDGET,
    LIMIT,
    METHOD,
    QUICK_MARK,
    UNJOURNALED,
    CaseResult,
    Machine,
    markdown,
    ratio,
    spliced,
    table,
    verdict,
)
from tests.bench.rounds import Latency, Range, Rig, latencies, throughputs
from tests.bench.systems import Case, FloorSystem, MeshSystem, System

BURN_US = 20.0
SYSTEMS = ("floor", "lean", "mesh", UNJOURNALED)
# Heavier than the plain case, beside the budget: design of the hot path, "heavier cases".
HEAVIER = [
    Case(1, 512, "structured"),
    Case(10, 512, "structured"),
    Case(10, 512, "headers"),
    Case(10, 512, "unique"),
    Case(10, 512, "replies"),
]
# What else `make bench` measures: title → a function that is told whether to be quick, prints what it finds as it goes, and returns
# lines of Markdown. They run after the cases, alone on the machine.
SECTIONS: dict[str, Callable[[bool], list[str]]] = {
    "stages": stages.section,
    **BOUNDS,
    "control-plane": control_plane.section,
    "kafka": kafka_channel.section,
    "rabbitmq": rabbitmq_channel.section,
}


def arguments() -> argparse.Namespace:
    quick = os.environ.get("EVENTING_BENCH_QUICK", "") not in {"", "0"}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fan-out", type=int, nargs="+", default=[1] if quick else [1, 10, 100])
    parser.add_argument(
        "--size", type=int, nargs="+", default=[512] if quick else [512, 10 << 10], help="bytes of data of an event (at least 64)"
    )
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=SECTIONS, help="what else to measure")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these sections alone, and put them into the file")
    parser.add_argument("--rounds", type=int, default=1 if quick else 5)
    parser.add_argument("--seconds", type=float, default=0.8 if quick else 1.5, help="measured, per system and round")
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--concurrency", type=int, default=32, help="per subscription of the mesh; the floor's pool has 32")
    parser.add_argument("--prove", action="store_true", help="measure the harness instead of the mesh")
    parser.add_argument("--gate", action="store_true", help=f"fail when a ratio is above {BUDGET}")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    options.quick = quick
    return options


def main() -> int:
    options = arguments()
    if options.only:
        return some(options)
    cases = [Case(fan_out, size) for size in options.size for fan_out in options.fan_out]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventing-bench-")))
        rig = Rig(directory)
        stack.callback(rig.close)
        return prove(options, rig, cases, stack) if options.prove else compare(options, rig, cases, directory, stack)


def some(options: argparse.Namespace) -> int:
    """Sections measured alone, in place of what the file has of them."""
    output: Path = options.output
    for title in options.only:
        here = Machine.here(ROOT, os.cpu_count() or 1, os.getloadavg()[0])
        section = [
            *SECTIONS[title](options.quick),
            "",
            f"Measured alone at commit {here.commit}, {here.when}; load of the machine before: {here.load:.1f}.",
        ]
        if not options.quick:
            output.write_text(spliced(output.read_text(), section))
    return 0


def compare(options: argparse.Namespace, rig: Rig, cases: list[Case], directory: Path, stack: ExitStack) -> int:
    load = os.getloadavg()[0]
    systems: list[System] = []
    mesh: MeshSystem | None = None
    idle_kib: dict[str, int] = {}
    for name in options.systems:
        if name == "mesh":
            mesh = MeshSystem(name, rig.port, directory / name, cases if options.quick else cases + HEAVIER, options.concurrency)
            stack.callback(mesh.close)
            systems.append(mesh)
            idle_kib = idle(mesh, cases)  # before there is a second mesh: pages that both use would count half
            continue
        if name == UNJOURNALED:
            systems.append(MeshSystem(name, rig.port, directory / name, cases, options.concurrency, "--no-journal"))
        else:
            systems.append(FloorSystem(name, rig.port, *(["--lean"] if name == "lean" else [])))
        stack.callback(systems[-1].close)
    results = []
    for case in cases:
        results.append(measure(options, rig, systems, case))
        print(table(results[-1]), verdict(results[-1]), sep="\n", end="\n\n", flush=True)
    heavier = []
    if not options.quick and mesh is not None:
        for case in HEAVIER:
            heavier.append(measure(options, rig, [s for s in systems if s.name in {"floor", "mesh"}], case, timed=False))
            print(table(heavier[-1]), end="\n\n", flush=True)
    for name, kib in idle_kib.items():
        print(f"idle {name}: {kib / 1024:.0f} MB")
    start_s = mesh.start_s if mesh else None
    stack.close()  # what follows is alone on the machine
    sections = {title: SECTIONS[title](options.quick) for title in options.sections}
    text = markdown(
        Machine.here(ROOT, os.cpu_count() or 1, load),
        results,
        heavier=heavier,
        sections=sections,
        idle_kib=idle_kib,
        start_s=start_s,
        method=f"{METHOD}- Concurrency per subscription: {options.concurrency}; the floor's pool has 32 connections.\n",
        quick=options.quick,
    )
    write(options, text)
    over = [
        str(result.case)
        for result in results
        if "mesh" in result.throughputs and ratio(result, "mesh", "floor").middle > BUDGET.get(result.case.fan_out, LIMIT)
    ]
    if options.gate and over:
        print("over the budget:", "; ".join(over))
        return 1
    return 0


def idle(mesh: MeshSystem, cases: list[Case]) -> dict[str, int]:
    """Memory of its processes once it is configured for the cases."""
    for case in cases:
        mesh.prepare(case)
    time.sleep(1.0)
    found: dict[str, int] = {}
    for pid in mesh.pids():
        name = role(mesh, pid)
        found[name] = found.get(name, 0) + memory_kib(pid)
    return found


def role(mesh: MeshSystem, pid: int) -> str:
    if pid == mesh.pid:
        return "data plane"
    command = command_line(pid)
    return next((word for word in ("control", "supervisor", "quickstart") if word in command), "supervisor")


def measure(options: argparse.Namespace, rig: Rig, systems: list[System], case: Case, *, timed: bool = True) -> CaseResult:
    """Every system's rates and CPU in this case, and with `timed` latencies at half the last one's highest rate."""
    for system in systems:
        system.prepare(case)
    fast = throughputs(rig, systems, case, options.rounds, options.warm_up, options.seconds)
    slow: dict[str, list[Latency]] = {}
    if timed:
        measured = [system for system in systems if system.name not in {"lean", UNJOURNALED}] or systems
        highest = Range.of([one.deliveries_per_s for one in fast[measured[-1].name]]).middle / case.fan_out
        slow = latencies(rig, measured, case, max(1, int(highest / 2)), options.rounds, options.warm_up, options.seconds)
    return CaseResult(case, fast, slow, {system.name: peak_memory_kib(system.pid) for system in systems})


def prove(options: argparse.Namespace, rig: Rig, cases: list[Case], stack: ExitStack) -> int:
    """The twin must cost what the floor costs, the slowed floor its known amount more."""
    burn = ("--burn-us", str(BURN_US))
    systems: list[System] = [
        FloorSystem("floor", rig.port),
        FloorSystem("twin", rig.port),
        FloorSystem("slowed", rig.port, *burn),
    ]
    for system in systems:
        stack.callback(system.close)
    good = True
    for case in cases:
        result = measure(options, rig, systems, case)
        twin = ratio(result, "twin", "floor").middle
        pairs = zip(result.throughputs["slowed"], result.throughputs["floor"], strict=True)
        added = Range.of([slowed.cpu_us - floor.cpu_us for slowed, floor in pairs]).middle
        fine = abs(twin - 1) < 0.15 and 0.75 * BURN_US < added < 1.35 * BURN_US
        good = good and fine
        print(table(result))
        said = "Good." if fine else "NOT GOOD: a fault, or a busy machine."
        print(f"twin: {twin:.2f} times the floor; slowed by {BURN_US} µs: measured {added:.1f}. {said}\n")
    return 0 if good else 1


def write(options: argparse.Namespace, text: str) -> None:
    """A quick run never replaces the figures of a whole one."""
    output: Path = options.output
    if options.quick and output.exists() and QUICK_MARK not in output.read_text():
        print(f"{output.name} keeps the figures of its last whole run")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    print(f"written: {output}")


if __name__ == "__main__":
    sys.exit(main())
