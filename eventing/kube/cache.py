"""A copy of all objects of one kind that follows the server: list, then watch, for as long as it runs."""

import asyncio
import builtins
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from eventing.errors import ApiError, ResourceExpiredError
from eventing.kube.client import KubeClient
from eventing.kube.snapshots import Key, Snapshots
from eventing.resources.kinds import Kind, Object

__all__ = ["Cache", "Change", "controller_of"]

_log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 30.0
_WATCH_S: Final = (300.0, 600.0)
_HEALTHY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to an object: `old` is what the cache held before (None on ADDED); on DELETED `obj` is the last
    state known. `own`: one's own write (`Cache.remember`) has changed the status, and nobody anything else.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    obj: Object
    old: Object | None
    own: bool = False

    @property
    def key(self) -> Key:
        return _key(self.obj)


class Cache:
    """The objects of one kind, of one namespace or of all; with `name` the one object of that name in its namespace.

    An object in the cache is replaced, never altered: who holds one holds a snapshot and must not change it.
    Handlers are called one after the other, in the order of the changes, from the loop; they must not block.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        namespace: str | None = None,
        *,
        name: str = "",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: random.Random | None = None,
    ) -> None:
        self.kind = kind
        self._client = client
        self._namespace = namespace
        self._selected = {"name": name} if name else {}
        self._sleep = sleep
        self._random = rand or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._objects = Snapshots()
        self._owned: dict[str, set[Key]] = {}  # by the uid of the owner
        self._handlers: list[Callable[[Change], None]] = []
        self._synced = asyncio.Event()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, namespace: str, name: str) -> Object | None:
        """The object, None where there is none (or it is not known yet); the namespace is "" in kinds
        without.
        """
        return self._objects.get((namespace, name))

    def owned_by(self, uid: str) -> list[Object]:
        """The objects whose controller (the ownerReference of that mark) has this uid."""
        return [self._objects[key] for key in sorted(self._owned.get(uid, ()))]

    def list(self, namespace: str | None = None) -> list[Object]:
        """All objects, or those of one namespace."""
        if namespace is None:
            return list(self._objects.values())
        return [self._objects[key] for key in self._objects if key[0] == namespace]

    def keys(self) -> builtins.list[Key]:
        """(namespace, name) of all objects; costs less than `list`."""
        return [*self._objects]

    def on_change(self, handler: Callable[[Change], None]) -> None:
        """Call `handler` from now on; for what is here already, at once, as ADDED."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(Change("ADDED", obj, None))

    async def synced(self) -> None:
        """Wait until the cache has listed for the first time."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    def remember(self, obj: Object) -> None:
        """Take the answer to one's own write, so that the next look does not see the past. Handlers are
        called.

        It only ever replaces an older state of the same object: what is not here (any more) comes by the
        watch.
        """
        current = self._objects.get(_key(obj))
        if current is not None and _uid(current) == _uid(obj) and _newer(obj, current):
            # The answer may hold somebody else's write too, whose event will then be no news: that must be told.
            self._put(obj, own=_what_others_write(obj) == _what_others_write(current))

    async def run(self) -> None:
        """Follow the server until cancelled. Nothing ends it: failures are logged, and tried again after a
        while.
        """
        loop = asyncio.get_running_loop()
        version: str | None = None
        failures = 0
        while True:
            began = loop.time()
            progress = False
            try:
                if version is None:
                    items, version = await self._client.list(self.kind, self._namespace, **self._selected)
                    self._replace(items)
                    self._synced.set()
                watch = self._client.watch(
                    self.kind,
                    self._namespace,
                    resource_version=version,
                    timeout_s=self._random.uniform(*_WATCH_S),
                    **self._selected,
                )
                async with contextlib.aclosing(watch):
                    async for type_, obj in watch:
                        progress = True
                        version = obj["metadata"].get("resourceVersion") or version
                        self._apply(type_, obj)
                failed = False
            except ResourceExpiredError:
                version = None
                failed = False
            except ApiError as error:
                failed = True
                _log.warning("watch failed", extra={"resource": self.kind.plural, "error": error.message})
            # A watch that did its work, or lasted, is followed by the next at once. A server that ends each
            # at once is asked less and less often, whether it gives an error or none.
            healthy = progress or loop.time() - began >= _HEALTHY_S
            failures = int(failed) if healthy else failures + 1
            if failures:
                await self._sleep(self._delay(failures))

    def _delay(self, failures: int) -> float:
        longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(failures, 16))
        return self._random.uniform(longest / 2, longest)

    def _replace(self, items: Iterable[Object]) -> None:
        """A new list: what is missing from it was deleted while nobody watched."""
        listed = {_key(item): item for item in items}
        for key in [key for key in self._objects if key not in listed]:
            self._drop(key)
        for item in listed.values():
            self._apply("MODIFIED", item)

    def _apply(self, type_: str, obj: Object) -> None:
        if type_ == "BOOKMARK":
            return
        key = _key(obj)
        current = self._objects.get(key)
        if type_ == "DELETED":
            if current is not None and _uid(current) == _uid(obj):
                self._drop(key, obj)
        elif current is None:
            self._put(obj)
        elif _uid(current) != _uid(obj):
            # Deleted and made again while nobody watched: two objects, so two changes.
            self._drop(key)
            self._put(obj)
        elif _newer(obj, current):
            self._put(obj)

    def _put(self, obj: Object, *, own: bool = False) -> None:
        key = _key(obj)
        old = self._objects.get(key)
        self._objects[key] = obj
        obj = self._objects[key]
        self._index(key, old, obj)
        self._tell(Change("ADDED" if old is None else "MODIFIED", obj, old, own))

    def _drop(self, key: Key, last: Object | None = None) -> None:
        old = self._objects.pop(key)
        self._index(key, old, None)
        self._tell(Change("DELETED", last or old, old))

    def _index(self, key: Key, old: Object | None, new: Object | None) -> None:
        before, after = ((controller_of(obj) or {}).get("uid") if obj is not None else None for obj in (old, new))
        if before == after:
            return
        if before is not None:
            self._owned[before].discard(key)
            if not self._owned[before]:
                del self._owned[before]
        if after is not None:
            self._owned.setdefault(after, set()).add(key)

    def _tell(self, change: Change) -> None:
        for handler in self._handlers:
            handler(change)


def controller_of(obj: Object) -> Object | None:
    """The ownerReference to the object that made this one and looks after it, None where there is none."""
    references: list[Object] = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _key(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _uid(obj: Object) -> str | None:
    uid: str | None = obj["metadata"].get("uid")
    return uid


def _what_others_write(obj: Object) -> Object:
    return {name: value for name, value in obj["metadata"].items() if name not in {"resourceVersion", "managedFields"}}


def _newer(obj: Object, current: Object) -> bool:
    """Whether `obj` is a later state. Versions are numbers in every server there is; where not, what comes
    last wins.
    """
    new, old = (o["metadata"].get("resourceVersion", "") for o in (obj, current))
    return int(new) > int(old) if new.isdecimal() and old.isdecimal() else new != old
