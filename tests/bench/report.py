"""The figures as a table for the terminal and as docs/benchmarks.md."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench.processes import ACCOUNTING, MEMORY
from tests.bench.rounds import Latency, Range, Throughput
from tests.bench.systems import Case

__all__ = [
    "BUDGET",
    "JOURNAL_US",
    "LIMIT",
    "QUICK_MARK",
    "UNJOURNALED",
    "CaseResult",
    "Machine",
    "grid",
    "markdown",
    "ratio",
    "spliced",
    "table",
]

BUDGET = {1: 1.5, 10: 1.7, 100: 1.6}  # times the floor's CPU per delivery, by fan-out
LIMIT = 2.0
UNJOURNALED = "no-journal"  # the mesh with its journal switched off
JOURNAL_US = 4.0  # what the journal may cost per delivery
QUICK_MARK = "**A quick run: one short round. Its figures say that the harness works, and no more.**"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """All rounds of one case, by system; `peak_kib` is the most that the process under test ever had resident."""

    case: Case
    throughputs: dict[str, list[Throughput]]
    latencies: dict[str, list[Latency]] = field(default_factory=dict)
    peak_kib: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int
    system: str
    python: str
    libraries: str
    commit: str
    load: float  # average of the minute before
    when: str

    @classmethod
    def here(cls, root: Path, cores: int, load: float) -> "Machine":
        libraries = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "httptools"))
        return cls(
            _cpu_model(),
            cores,
            f"{platform.system()} {platform.release()} {platform.machine()}",
            f"{platform.python_implementation()} {platform.python_version()}",
            libraries,
            _commit(root),
            load,
            datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    elif sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], check=False, capture_output=True, text=True
        ).stdout.strip()
    return platform.processor() or "unknown"


def _commit(root: Path) -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "eventing", "adapters", "tests/bench", "pyproject.toml")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return commit + (" with uncommitted changes" if changed else "")


def ratio(result: CaseResult, system: str, base: str) -> Range:
    """CPU per delivery of `system` over that of `base`, round by round: neighbours' noise falls on both of a round."""
    ours, floors = result.throughputs[system], result.throughputs[base]
    return Range.of([mine.cpu_us / its.cpu_us for mine, its in zip(ours, floors, strict=True)])


def journal_us(result: CaseResult) -> Range:
    """What the journal costs per delivery, round by round."""
    journaled, unjournaled = result.throughputs["mesh"], result.throughputs[UNJOURNALED]
    return Range.of([on.cpu_us - off.cpu_us for on, off in zip(journaled, unjournaled, strict=True)])


HEADINGS = ("system", "deliveries/s", "CPU µs per delivery", "ratio to floor", "of a core",
            "events/s offered", "p50 ms", "p99 ms", "its CPU µs", "peak MB")  # fmt: skip


def rows(result: CaseResult) -> list[tuple[str, ...]]:
    base = next(iter(result.throughputs))
    found = []
    for system, rounds in result.throughputs.items():
        speed = Range.of([one.deliveries_per_s for one in rounds])
        cpu = Range.of([one.cpu_us for one in rounds])
        times = ratio(result, system, base)
        shown = [
            system,
            _shown(speed, ",.0f"),
            _shown(cpu, ".1f"),
            "1" if system == base else _shown(times, ".2f"),
            f"{Range.of([one.busy for one in rounds]).middle:.0%}",
        ]
        slow = result.latencies.get(system)
        if slow:
            p50, p99 = Range.of([one.p50 for one in slow]), Range.of([one.p99 for one in slow])
            shown += [
                f"{slow[0].rate:,}",
                _shown(p50, ".2f"),
                _shown(p99, ".1f"),
                f"{Range.of([one.cpu_us for one in slow]).middle:.1f}",
            ]
        else:
            shown += ["-"] * 4
        shown.append(f"{result.peak_kib[system] / 1024:.0f}" if system in result.peak_kib else "-")
        found.append(tuple(shown))
    return found


def _shown(values: Range, form: str) -> str:
    if values.low == values.high:
        return f"{values.middle:{form}}"
    return f"{values.middle:{form}} ({values.low:{form}} to {values.high:{form}})"


def table(result: CaseResult) -> str:
    """For the terminal."""
    lines = [HEADINGS, *rows(result)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join((str(result.case), *shown))


def verdict(result: CaseResult) -> str:
    if "mesh" not in result.throughputs:
        return ""
    times = ratio(result, "mesh", "floor").middle
    budget = BUDGET.get(result.case.fan_out, BUDGET[10])
    said = "within the budget of" if times <= budget else "**over the budget** of"
    text = f"The mesh costs {times:.2f} times the floor: {said} {budget} (limit {LIMIT})."
    if "mesh" in result.latencies and "floor" in result.latencies:
        p99 = Range.of([a.p99 / b.p99 for a, b in zip(result.latencies["mesh"], result.latencies["floor"], strict=True)]).middle
        text += f" Its p99 is {p99:.1f} times the floor's at the same rate (goal: at most 3)."
    if UNJOURNALED in result.throughputs:
        text += f" The journal costs {_shown(journal_us(result), '.1f')} µs per delivery (goal: at most {JOURNAL_US:g})."
    return text


def grid(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]


def spliced(text: str, section: Sequence[str]) -> str:
    """The document with `section`, which begins with its heading, in place of what it had under that heading, or at its end."""
    before, found, after = text.partition(f"\n{section[0]}\n")
    _, following, rest = after.partition("\n## ")
    return f"{before.rstrip()}\n\n" + "\n".join(section).rstrip() + "\n" + (f"{following}{rest}" if found else "")


def markdown(
    machine: Machine,
    results: list[CaseResult],
    *,
    heavier: Sequence[CaseResult] = (),
    sections: Mapping[str, Sequence[str]] | None = None,
    idle_kib: dict[str, int],
    start_s: float | None,
    method: str,
    quick: bool,
) -> str:
    """docs/benchmarks.md."""
    lines = ["# Benchmarks", "", "Written by `make bench`; do not edit.", ""]
    if quick:
        lines += [QUICK_MARK, ""]
    lines += grid(
        ("machine", ""),
        [
            ("CPU", f"{machine.cpu}, {machine.cores} cores, shared by system under test, load generator and sink"),
            ("load of the machine before", f"{machine.load:.2f}"),
            ("system", machine.system),
            ("Python", f"{machine.python}; {machine.libraries}"),
            ("commit", machine.commit),
            ("when", machine.when),
        ],
    )
    lines += ["", "## How it is measured", "", method, ""]
    for result in results:
        lines += [f"## {str(result.case).replace('f', 'F', 1)}", "", *grid(HEADINGS, rows(result)), ""]
        if said := verdict(result):
            lines += [said, ""]
    if heavier:
        lines += [
            "## Heavier cases",
            "",
            HEAVIER,
            "",
            *grid(
                ("case", "floor CPU µs", "mesh CPU µs", "ratio to floor"),
                [
                    (
                        str(result.case),
                        *(
                            _shown(Range.of([one.cpu_us for one in result.throughputs[name]]), ".1f")
                            for name in ("floor", "mesh")
                        ),
                        _shown(ratio(result, "mesh", "floor"), ".2f"),
                    )
                    for result in heavier
                ],
            ),
            "",
        ]
    if idle_kib:
        lines += [f"## Memory of the idle mesh ({MEMORY})", "", "Started, configured for the cases above, no event yet.", ""]
        shown = [(name, f"{kib / 1024:.0f}") for name, kib in idle_kib.items()]
        lines += grid(("process", "MB"), [*shown, ("all", f"{sum(idle_kib.values()) / 1024:.0f} (limit 130)")])
        lines.append("")
    if start_s is not None:
        lines += [f"From `eventing up` to ready: {start_s:.1f} s.", ""]
    for section in (sections or {}).values():
        lines += [*section, ""]
    return "\n".join(lines)


HEAVIER = """\
Beside the budget. *structured*: the events come in structured mode (the floor forwards them undecoded). *headers*, *unique*: the
answers have five headers, the same ones or one that is new each time (the floor looks at none). *replies*: each answer is an event
of 60 bytes, which the mesh sends on to a reply address, one more request per delivery (the floor drops it)."""

METHOD = f"""\
Events in binary mode, JSON data of the size given, eight request headers, over loopback, no pipelining. Load generator
and sink are processes of their own (`tests/bench/`), the sink answers 200 without a body. Metrics and journal are on.
The systems take turns within each round; a round's ratio compares neighbours in time, and the table shows the median of
the rounds with the lowest and the highest: what differs by less than ±0.15 differs by nothing.

- *floor*: a bare forwarder on httptools and uvloop, its work fixed in the docstring of `tests/bench/floor.py`; *lean* is
  the same without header callbacks, forwarding the bytes as they came.
- *{UNJOURNALED}* is a second mesh, started with `--no-journal`: the difference of the two is what the journal costs.
- *deliveries/s* and *CPU µs*: closed loop, at most 32 / 25 / 8 events on their way at fan-out 1 / 10 / 100, each counted
  until its last delivery. CPU is user and system time of the process under test ({ACCOUNTING}),
  for the mesh the data-plane process, over the deliveries that the sink counted. Every event must arrive exactly once
  per subscriber or the run fails.
- *of a core*: how busy the process under test was meanwhile. Far below 100 % it was not the bottleneck: a busy machine.
- *p50*, *p99*, *its CPU*: open loop over 64 connections at half the mesh's own highest rate, from the moment an event
  was due to its arrival at the subscriber.
- *peak*: the most memory that the process under test ever had resident.
"""
