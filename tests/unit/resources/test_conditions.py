"""The algebra of conditions (those of knative.dev/pkg)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventing.resources.conditions import ConditionSet, condition_of, is_ready

SET = ConditionSet("A", "B")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def tick(self) -> None:
        self.now += timedelta(seconds=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def brief(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in status["conditions"]}


def test_initialised_unknown_and_sorted(clock: Clock) -> None:
    status: dict[str, Any] = {}
    SET.manage(status, clock)
    assert [c["type"] for c in status["conditions"]] == ["A", "B", "Ready"]
    assert set(brief(status).values()) == {("Unknown", "")}


def test_new_dependent_of_a_ready_object_starts_true(clock: Clock) -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    SET.manage(status, clock)
    assert brief(status) == {"A": ("True", ""), "B": ("True", ""), "Ready": ("True", "")}


def test_ready_when_all_dependents_are_even_with_a_reason(clock: Clock) -> None:
    status: dict[str, Any] = {}
    conditions = SET.manage(status, clock)
    conditions.mark_true("A", "NotConfigured", "none wanted")
    assert brief(status)["Ready"] == ("Unknown", "")
    conditions.mark_true("B")
    assert brief(status) == {"A": ("True", "NotConfigured"), "B": ("True", ""), "Ready": ("True", "")}


def test_newest_false_wins_over_unknown(clock: Clock) -> None:
    status: dict[str, Any] = {}
    conditions = SET.manage(status, clock)
    conditions.mark_false("A", "First", "1")
    clock.tick()
    conditions.mark_false("B", "Second", "2")
    assert brief(status)["Ready"] == ("False", "Second")
    conditions.mark_true("B")
    assert brief(status)["Ready"] == ("False", "First")
    conditions.mark_unknown("B", "Third")
    assert brief(status)["Ready"] == ("False", "First")
    conditions.mark_unknown("A", "Fourth")
    assert brief(status)["Ready"] == ("Unknown", "Fourth")


def test_informational_conditions_never_gate(clock: Clock) -> None:
    status: dict[str, Any] = {}
    conditions = SET.manage(status, clock)
    conditions.mark_true("A")
    conditions.mark_true("B")
    conditions.mark_false("Hint", "Odd", "look")
    assert conditions.happy
    assert condition_of({"status": status}, "Hint") == {
        "type": "Hint",
        "status": "False",
        "severity": "Info",
        "reason": "Odd",
        "message": "look",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    conditions.clear("Hint")
    assert "Hint" not in brief(status)
    with pytest.raises(ValueError, match="gates"):
        conditions.clear("A")


def test_a_round_that_ends_as_it_began_moves_no_time(clock: Clock) -> None:
    status: dict[str, Any] = {}
    conditions = SET.manage(status, clock)
    conditions.mark_true("A")
    conditions.mark_true("B")
    before = [dict(c) for c in status["conditions"]]
    clock.tick()
    conditions = SET.manage(status, clock)
    conditions.mark_unknown("A", "Looking")
    conditions.mark_true("A")
    assert status["conditions"] == before
    conditions.mark_false("A", "Broken", "it is")
    times = {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
    assert times == {
        "A": "2026-01-01T00:00:01Z",
        "B": "2026-01-01T00:00:00Z",
        "Ready": "2026-01-01T00:00:01Z",
    }


def test_ready_of_an_older_generation_is_not_ready() -> None:
    obj: dict[str, Any] = {
        "metadata": {"generation": 2},
        "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert not is_ready(obj)
    obj["status"]["observedGeneration"] = 2
    assert is_ready(obj)
