"""How the tests are shared out among the processes of one run: `make test TEST_WORKERS=auto` has several, by pytest-xdist.

A file's tests stay together, in their order, since they may share what takes long to start: an API server, a mesh. So do all tests with
one broker, which thus wait in a process of their own while the others work. Tests that have processes of the mesh of their own each go
alone. What waits longest begins first.
"""

import os
import re
from typing import Any, Final

import pytest

__all__ = ["hand_over", "handed_over", "in_worker", "longest_first", "share_of", "worker_count"]

_ALONE: Final = (
    "tests/chaos/",
    "tests/e2e/test_up_first_event.py",
    "tests/e2e/test_up_processes.py",
    "tests/unit/runtime/test_supervisor.py",
)
_MOST: Final = 6
_WITH_BROKER: Final = re.compile(r"tests/(?:chaos|contract|e2e|integration)/\S*(kafka|rabbitmq)")
_VERSION: Final = re.compile(r"rabbitmq-\d+")
_WITH_PROCESSES: Final = ("tests/e2e/", "tests/packaging/", "tests/unit/runtime/")
_HANDED: Final = "eventing_mesh"


def share_of(nodeid: str) -> str:
    """With the tests of the same share it runs in one process, one after the other."""
    path, _, name = nodeid.partition("::")
    if broker := _WITH_BROKER.match(path):
        version = _VERSION.search(name)
        return version[0] if version else broker[1]
    return nodeid if path.startswith(_ALONE) else path


def worker_count() -> int:
    """Two for each core: about half of the time the tests wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, 2 * cores)


def in_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several."""
    return hasattr(config, "workerinput")


def longest_first(items: list[pytest.Item]) -> None:
    """What would be the end of the run if it began last, first; among themselves they keep the random order."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if _WITH_BROKER.match(item.nodeid):
        return 0
    return 1 if item.nodeid.startswith((*_ALONE, *_WITH_PROCESSES)) else 2


def hand_over(config: pytest.Config, told: list[Any]) -> None:
    """From a worker, at its end, to the process that sums up; made of lists, tuples, strings and numbers."""
    config.workeroutput[_HANDED] = told  # type: ignore[attr-defined]  # of xdist, in workers only


def handed_over(node: Any) -> list[Any]:
    """What a worker has handed over; nothing from one that has died."""
    return list(getattr(node, "workeroutput", {}).get(_HANDED, ()))
