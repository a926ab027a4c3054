"""Who refers to which object, so that a change of the one calls in the others."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["Tracker"]

Watcher = TypeVar("Watcher", bound=Hashable)
Target = TypeVar("Target", bound=Hashable)


class Tracker(Generic[Watcher, Target]):
    """A relation of watchers and the targets that they depend on, looked up from both ends.

    Targets need not exist: a watcher that refers to what is not there yet is called in when it appears.
    """

    def __init__(self) -> None:
        self._targets: dict[Watcher, frozenset[Target]] = {}
        self._watchers: defaultdict[Target, set[Watcher]] = defaultdict(set)

    def track(self, watcher: Watcher, targets: Iterable[Target]) -> None:
        """From now on `watcher` depends on these targets and on no others; on none, it is forgotten."""
        new = frozenset(targets)
        old = self._targets.get(watcher, frozenset())
        for target in old - new:
            watchers = self._watchers[target]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[target]
        for target in new - old:
            self._watchers[target].add(watcher)
        if new:
            self._targets[watcher] = new
        else:
            self._targets.pop(watcher, None)

    def watchers(self, target: Target) -> frozenset[Watcher]:
        """Who depends on the target."""
        return frozenset(self._watchers.get(target, ()))

    def targets(self) -> list[Target]:
        """Everything that somebody depends on."""
        return list(self._watchers)

    def __len__(self) -> int:
        return len(self._targets)
