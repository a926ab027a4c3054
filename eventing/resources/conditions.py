"""Status conditions as knative.dev/pkg keeps them, the same for every kind.

A condition is `{type, status, severity?, reason?, message?, lastTransitionTime}`. One of them, Ready, sums up
the kind's dependents; conditions that are not dependents carry `severity: Info` and never gate Ready.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

__all__ = ["ConditionSet", "Conditions", "Status", "condition_of", "is_ready", "timestamp"]

Status = Literal["True", "False", "Unknown"]
_Condition = dict[str, Any]


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC with seconds, as Kubernetes writes times."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition_of(obj: dict[str, Any], type_: str = "Ready") -> _Condition | None:
    """The condition of that type in an object's status, None where there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == type_), None)


def is_ready(obj: dict[str, Any]) -> bool:
    """Ready is True and speaks of the object's present generation."""
    condition = condition_of(obj)
    observed = (obj.get("status") or {}).get("observedGeneration")
    generation = obj["metadata"].get("generation")
    return condition is not None and condition.get("status") == "True" and observed == generation


class ConditionSet:
    """Which conditions of a kind gate which one: the happy condition and its dependents."""

    def __init__(self, *dependents: str, happy: str = "Ready") -> None:
        self.happy: Final = happy
        self.dependents: Final = dependents

    def manage(self, status: dict[str, Any], now: Callable[[], datetime]) -> "Conditions":
        """Start a round over `status["conditions"]`, which the methods of the result replace."""
        return Conditions(self, status, now)


class Conditions:
    """One round over an object's conditions.

    `lastTransitionTime` moves only where the outcome of the round differs from what was there before it: a
    condition that is Unknown halfway through a round and True again at its end has not changed.
    """

    def __init__(self, conditions: ConditionSet, status: dict[str, Any], now: Callable[[], datetime]) -> None:
        self._set = conditions
        self._status = status
        self._now = now
        self._before: dict[str, _Condition] = {c["type"]: c for c in status.get("conditions") or ()}
        self._current = dict(self._before)
        # What changed last in this round wins among equals; times have seconds only, so they cannot tell.
        self._touched: dict[str, int] = {}
        self._initialise()

    def get(self, type_: str) -> _Condition | None:
        return self._current.get(type_)

    def status_of(self, type_: str) -> str:
        return str(self._current.get(type_, {}).get("status", "Unknown"))

    @property
    def happy(self) -> bool:
        return self.status_of(self._set.happy) == "True"

    def mark_true(self, type_: str, reason: str = "", message: str = "") -> None:
        """The condition holds, perhaps with a reason; Ready follows when all dependents do."""
        self._write(type_, "True", reason, message)
        if type_ != self._set.happy:
            self._sum_up()

    def mark_false(self, type_: str, reason: str, message: str = "") -> None:
        """The condition fails; so does Ready, with the same words, if it depends on it."""
        self._write(type_, "False", reason, message)
        if type_ in self._set.dependents:
            self._write(self._set.happy, "False", reason, message)

    def mark_unknown(self, type_: str, reason: str = "", message: str = "") -> None:
        """It is not known yet; Ready is Unknown too unless another dependent is False."""
        self._write(type_, "Unknown", reason, message)
        if type_ not in self._set.dependents:
            return
        if any(self.status_of(other) == "False" for other in self._set.dependents):
            self._sum_up()
        else:
            self._write(self._set.happy, "Unknown", reason, message)

    def clear(self, type_: str) -> None:
        """Remove a condition that gates nothing."""
        if type_ in (*self._set.dependents, self._set.happy):
            raise ValueError(f"{type_} gates {self._set.happy} and cannot be removed")
        self._current.pop(type_, None)
        self._store()

    def _initialise(self) -> None:
        dependent_status = "True" if self.happy else "Unknown"
        for type_, status in (
            (self._set.happy, "Unknown"),
            *((d, dependent_status) for d in self._set.dependents),
        ):
            if type_ not in self._current:
                self._write(type_, status, "", "")

    def _sum_up(self) -> None:
        dependents = [self._current[type_] for type_ in self._set.dependents]
        dependents.sort(key=lambda c: (c.get("lastTransitionTime", ""), self._touched.get(c["type"], 0)), reverse=True)
        for status in ("False", "Unknown"):
            for condition in dependents:
                if condition["status"] == status:
                    self._write(self._set.happy, status, condition.get("reason", ""), condition.get("message", ""))
                    return
        self._write(self._set.happy, "True", "", "")

    def _write(self, type_: str, status: str, reason: str, message: str) -> None:
        condition: _Condition = {"type": type_, "status": status}
        if type_ != self._set.happy and type_ not in self._set.dependents:
            condition["severity"] = "Info"
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        current = self._current.get(type_)
        if current is not None and _same(current, condition):
            return
        before = self._before.get(type_)
        condition["lastTransitionTime"] = (
            before.get("lastTransitionTime") if before and _same(before, condition) else timestamp(self._now())
        )
        self._touched[type_] = len(self._touched) + 1
        self._current[type_] = condition
        self._store()

    def _store(self) -> None:
        self._status["conditions"] = [self._current[type_] for type_ in sorted(self._current)]


def _same(one: _Condition, other: _Condition) -> bool:
    return all((one.get(key) or "") == (other.get(key) or "") for key in ("status", "severity", "reason", "message"))
