"""Health for probes and for people: `/healthz`, `/livez` and `/readyz`, in the words of Kubernetes' own.

A probe reads the status code. People read the body: `ok`, and a line per check where something is not, or where they ask for
it (`?verbose`). `/readyz/NAME` asks for one check, `?exclude=NAME` leaves one out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qs

__all__ = ["TEXT", "Check", "Health", "State"]

TEXT: Final = "text/plain; charset=utf-8"


class State(Enum):
    """The mark that stands before a check."""

    OK = "+"
    DEGRADED = "!"  # works, and somebody should look at it: fails no probe
    FAILED = "-"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one thing; `detail` is for people."""

    name: str
    state: State = State.OK
    detail: str = ""

    def __str__(self) -> str:
        words = {State.OK: "ok", State.DEGRADED: "degraded", State.FAILED: "failed"}
        return f"[{self.state.value}]{self.name} {words[self.state]}" + (f": {self.detail}" if self.detail else "")


class Health:
    """`live` gives the checks of `/healthz` and `/livez`, `ready` those of `/readyz`."""

    def __init__(self, *, live: Callable[[], Iterable[Check]], ready: Callable[[], Iterable[Check]]) -> None:
        self._probes: Mapping[str, Callable[[], Iterable[Check]]] = {"healthz": live, "livez": live, "readyz": ready}

    def answer(self, path: str, query: str = "") -> tuple[int, str] | None:
        """Status and body for a path; None where it is none of health."""
        probe, _, name = path.removeprefix("/").partition("/")
        if probe not in self._probes:
            return None
        asked = parse_qs(query, keep_blank_values=True)
        checks = [check for check in self._probes[probe]() if check.name not in asked.get("exclude", ())]
        if name:
            checks = [check for check in checks if check.name == name]
            if not checks:
                return None
        failed = any(check.state is State.FAILED for check in checks)
        if "verbose" in asked or any(check.state is not State.OK for check in checks):
            lines = [*map(str, checks), f"{probe} check {'failed' if failed else 'passed'}"]
        else:
            return 200, "ok"
        return 503 if failed else 200, "\n".join(lines) + "\n"
