"""The harness counts right; what it says about speed is for `make bench`."""

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.bench.processes import cpu_ns, descendants, memory_kib, peak_memory_kib
from tests.bench.report import UNJOURNALED, CaseResult, Machine, markdown, ratio, spliced, table
from tests.bench.rounds import Latency, Range, Rig, Throughput
from tests.bench.systems import Case, FloorSystem

CASE = Case(fan_out=3, size=512)
T = TypeVar("T")


def measured(measure: Callable[[float], T]) -> T:
    """What it measures in a moment; in a longer one where the machine is so busy that nothing arrives in it."""
    for seconds in (0.2, 1.5):
        try:
            return measure(seconds)
        except (RuntimeError, TypeError) as error:
            if not re.search("nothing (was delivered|arrived)", str(error)):
                raise
    return measure(12.0)


@pytest.mark.parametrize("options", [(), ("--lean",)])
def test_every_event_is_accounted_for_at_a_floor(tmp_path: Path, options: tuple[str, ...]) -> None:
    rig = Rig(tmp_path)
    floor = FloorSystem("floor", rig.port, *options)
    try:
        floor.prepare(CASE)
        fast = measured(partial(rig.throughput, floor, CASE, 0.05))
        slow = measured(partial(rig.latency, floor, CASE, 200, 0.05))
    finally:
        floor.close()
        rig.close()
    assert fast.deliveries_per_s > 0
    assert 0 < fast.cpu_us < 1e6 / fast.deliveries_per_s * 1.05
    assert 0 < slow.p50 <= slow.p99 < 1000


@pytest.mark.parametrize("kind", ["structured", "headers", "unique", "replies"])
def test_heavier_cases_are_accounted_for_too(tmp_path: Path, kind: str) -> None:
    rig = Rig(tmp_path)
    case = Case(2, 512, kind)
    floor = FloorSystem("floor", rig.port)
    try:
        floor.prepare(case)
        assert measured(partial(rig.throughput, floor, case, 0.05)).deliveries_per_s > 0
    finally:
        floor.close()
        rig.close()


def test_a_system_that_loses_events_has_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    floor = FloorSystem("floor", rig.port)
    try:
        floor.prepare(Case(1, 512))
        floor.prepare(CASE)
        honest = rig.report
        monkeypatch.setattr(rig, "report", lambda: honest() | {"counts": {"fan-3/s0": 1}})
        with pytest.raises(RuntimeError, match="deliveries were due and 1 arrived"):
            rig.throughput(floor, CASE, 0.05, 0.1)
    finally:
        floor.close()
        rig.close()


@pytest.mark.parametrize("heading", ["First", "Second", "Third"])
def test_a_section_is_put_in_place_of_what_was_there(heading: str) -> None:
    text = "# Title\n\n## First\n\nold 1\n\n## Second\n\nold 2\n"
    new = spliced(text, [f"## {heading}", "", "new", ""])
    assert new.count("## ") == (3 if heading == "Third" else 2)
    assert f"## {heading}\n\nnew\n" in new
    assert ("old 1" in new, "old 2" in new) == (heading != "First", heading != "Second")
    assert spliced(new, [f"## {heading}", "", "new", ""]) == new


def test_a_process_is_accounted_for_by_the_system() -> None:
    before = cpu_ns(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.08e9 < cpu_ns(os.getpid()) - before < 0.5e9
    assert 0 < memory_kib(os.getpid()) <= peak_memory_kib(os.getpid())
    assert descendants(os.getpid())[0] == os.getpid()


def test_the_table_holds_medians_of_ratios_by_round() -> None:
    floor = [Throughput(100.0, cpu, 1.0) for cpu in (10.0, 20.0, 40.0)]
    mesh = [Throughput(80.0, cpu, 1.0) for cpu in (15.0, 28.0, 64.0)]
    off = [Throughput(90.0, cpu, 1.0) for cpu in (12.5, 26.0, 60.0)]
    systems = {"floor": floor, "mesh": mesh, UNJOURNALED: off}
    result = CaseResult(CASE, systems, {"mesh": [Latency(40, 0.5, 2.5, 30.0, 0.1)]}, {"mesh": 51200})
    assert ratio(result, "mesh", "floor") == Range(1.4, 1.5, 1.6)
    row = table(result).splitlines()[-2].split()
    assert row[:2] == ["mesh", "80"]
    assert row[-1] == "50"
    machine = Machine("cpu", 2, "Linux", "CPython 3.11", "uvloop 0", "abc", 0.1, "now")
    text = markdown(machine, [result], idle_kib={"control": 1024, "data plane": 2048}, start_s=1.25, method="So.", quick=True)
    assert "| mesh | 80 | 28.0 (15.0 to 64.0) | 1.50 (1.40 to 1.60) | 100% | 40 | 0.50 | 2.5 | 30.0 | 50 |" in text
    assert "The mesh costs 1.50 times the floor: within the budget of 1.7 (limit 2.0)." in text
    assert "The journal costs 2.5 (2.0 to 4.0) µs per delivery (goal: at most 4)." in text
    assert "| all | 3 (limit 130) |" in text


def test_without_subscribers_an_acceptance_is_what_counts(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    floor = FloorSystem("floor", rig.port)
    case = Case(0, 512)
    try:
        floor.prepare(case)
        assert measured(partial(rig.throughput, floor, case, 0.05)).deliveries_per_s > 0
        assert rig.report()["counts"] == {}
    finally:
        floor.close()
        rig.close()
