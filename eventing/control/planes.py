"""What the live data-plane processes have applied, and who is behind in them, read from their DataPlane objects."""

from collections.abc import Callable, Collection

from eventing.kube import Cache, Change
from eventing.resources.kinds import Kind, Object

__all__ = ["DataPlanes", "applied_name"]


def applied_name(kind: Kind, namespace: str, name: str) -> str:
    """How a DataPlane's status.applied names a channel."""
    return f"{kind.plural}.{kind.group}/{namespace}/{name}"


class DataPlanes:
    """The view of a cache of DataPlane objects; calls `changed` with the name of each channel that a report concerns, and
    with None when a process comes or goes, which concerns all. Calls `lagging` with NAMESPACE/NAME of each Subscription whose lag
    has changed.

    `expected`, where given, are the names of the processes that are run at all, whether they are up at the moment or not: an
    object of another name is left over from one that never comes back, and nobody waits for it.
    """

    def __init__(
        self,
        cache: Cache,
        changed: Callable[[str | None], None],
        lagging: Callable[[str], None],
        expected: Collection[str] | None = None,
    ) -> None:
        self._cache = cache
        self._changed = changed
        self._lagging = lagging
        self._expected = frozenset(expected) if expected is not None else None
        cache.on_change(self._told)

    @property
    def workers(self) -> int:
        """How many processes are run, up or not, where whoever runs them says so; else 1."""
        return len(self._expected) if self._expected is not None else 1

    @property
    def live(self) -> int:
        """How many processes there are."""
        return len(self._cache) if self._expected is None else sum(map(self._counts, self._cache.list()))

    def left_over(self) -> list[Object]:
        """The objects of processes that never come back."""
        return [plane for plane in self._cache.list() if not self._counts(plane)]

    def _counts(self, plane: Object) -> bool:
        return self._expected is None or plane["metadata"]["name"] in self._expected

    def generation(self, kind: Kind, channel: Object) -> int | None:
        """The generation of the channel that every live process has reached; None where there is none, or one has none."""
        metadata = channel["metadata"]
        name = applied_name(kind, metadata.get("namespace", ""), metadata["name"])
        lowest: int | None = None
        for plane in self._cache.list():
            if not self._counts(plane):
                continue
            applied = _applied(plane).get(name)
            if not applied or applied.get("uid") != metadata["uid"]:
                return None
            generation = int(applied.get("generation", 0))
            lowest = generation if lowest is None else min(lowest, generation)
        return lowest

    def serves(self, kind: Kind, channel: Object) -> bool:
        """Whether a live process has this very channel in force."""
        metadata = channel["metadata"]
        name = applied_name(kind, metadata.get("namespace", ""), metadata["name"])
        planes = (plane for plane in self._cache.list() if self._counts(plane))
        return any(_applied(plane).get(name, {}).get("uid") == metadata["uid"] for plane in planes)

    def lag(self, uid: str) -> Object | None:
        """How far a Subscription is behind in all processes together; None where there is no process."""
        planes = [plane for plane in self._cache.list() if self._counts(plane)]
        reports = [report for plane in planes if (report := _lags(plane).get(uid))]
        counts = [report.get("events") for report in reports]
        times = [report["oldest"] for report in reports if report.get("oldest")]
        lag: Object = {} if None in counts else {"events": sum(count for count in counts if count)}
        return lag | ({"oldest": min(times)} if times else {}) if planes else None

    @property
    def behind(self) -> int:
        """How many Subscriptions are reported to be behind, by one process or several."""
        return sum(len(_lags(plane)) for plane in self._cache.list())

    def _told(self, change: Change) -> None:
        new_lags, old_lags = _lags(change.obj), _lags(change.old) if change.old is not None else {}
        if change.type == "DELETED":
            new_lags, old_lags = {}, new_lags | old_lags
        for uid in new_lags.keys() | old_lags.keys():
            if new_lags.get(uid) != old_lags.get(uid):
                self._lagging(str((new_lags.get(uid) or old_lags[uid]).get("subscription", "")))
        if change.type != "MODIFIED" or change.old is None:
            self._changed(None)
            return
        new, old = _applied(change.obj), _applied(change.old)
        for name in new.keys() | old.keys():
            if new.get(name) != old.get(name):
                self._changed(name)


def _applied(plane: Object) -> Object:
    applied: Object = (plane.get("status") or {}).get("applied") or {}
    return applied


def _lags(plane: Object) -> Object:
    lags: Object = (plane.get("status") or {}).get("lag") or {}
    return lags
