"""Waiting for conditions with deadlines, and whether a process lives."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["DEADLINE_S", "alive", "eventually"]

T = TypeVar("T")
DEADLINE_S = 60.0  # no measure of anything: a machine with thirty processes for two cores is to be waited for


def eventually(probe: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true value of `probe`; fails, saying `what` did not come, after `deadline_s`."""
    deadline = time.monotonic() + deadline_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has collected does not."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
