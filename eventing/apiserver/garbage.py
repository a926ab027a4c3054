"""What goes when something else goes: dependents of deleted owners, and all there is in a deleted namespace.

Kubernetes, "Garbage Collection", "Owners and Dependents": background, foreground and orphan deletion. Level-triggered: changes
only say what to look at again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from eventing.apiserver.metadata import Header
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.store import Change, Key, Record, Store
from eventing.apiserver.writing import DeleteOptions, Writer
from eventing.errors import ApiError, ObjectConflictError, ObjectNotFoundError
from eventing.resources.kinds import Object

__all__ = ["Garbage"]

log = logging.getLogger(__name__)

_Item = tuple[str, Key]
_RETRY_S: Final = 1.0
_AT_ONCE: Final = 64
_FOREGROUND: Final = "foregroundDeletion"
_ORPHAN: Final = "orphan"
_NAMESPACES: Final = "namespaces"


class Garbage:
    """Collects in the background while `run` runs."""

    def __init__(self, store: Store, registry: Registry, writer: Writer) -> None:
        self._store = store
        self._registry = registry
        self._writer = writer
        self._places: dict[str, _Item] = {}  # uid → where
        self._dependents: dict[str, set[_Item]] = {}  # uid of the owner → who
        self._dirty: dict[_Item, None] = {}
        self._wake = asyncio.Event()
        for resource, collection in store.collections():
            for record in collection.records.values():
                self._note(resource, record, None)
        for item in [item for items in self._dependents.values() for item in items]:
            self._mark(item)
        store.observers.append(self._observe)

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                batch = [item for item, _ in zip(list(self._dirty), range(_AT_ONCE), strict=False)]
                for item in batch:
                    del self._dirty[item]
                async with asyncio.TaskGroup() as group:
                    for item in batch:
                        group.create_task(self._collect(item))

    def _observe(self, change: Change) -> None:
        item = (change.resource, change.record.key)
        header = change.record.header
        if change.removed:
            self._forget(item, change.previous.header if change.previous is not None else header)
            for dependent in self._dependents.get(header.uid, ()):
                self._mark(dependent)
            for owner in header.ownerReferences:
                if (place := self._places.get(owner.uid)) is not None:
                    self._mark(place)
            if item[1][0] and self._terminating(item[1][0]):
                self._mark((_NAMESPACES, ("", item[1][0])))
            return
        self._note(change.resource, change.record, change.previous)

    def _note(self, resource: str, record: Record, previous: Record | None) -> None:
        item = (resource, record.key)
        header = record.header
        if previous is not None and previous.header.ownerReferences != header.ownerReferences:
            self._forget(item, previous.header)
        self._places[header.uid] = item
        for owner in header.ownerReferences:
            self._dependents.setdefault(owner.uid, set()).add(item)
        owners_known = all(owner.uid in self._places for owner in header.ownerReferences)
        waits = header.deletionTimestamp and (resource == _NAMESPACES or {_FOREGROUND, _ORPHAN} & set(header.finalizers))
        if waits or not owners_known:
            self._mark(item)

    def _forget(self, item: _Item, header: Header) -> None:
        self._places.pop(header.uid, None)
        for owner in header.ownerReferences:
            dependents = self._dependents.get(owner.uid)
            if dependents is not None:
                dependents.discard(item)
                if not dependents:
                    del self._dependents[owner.uid]

    def _mark(self, item: _Item) -> None:
        self._dirty[item] = None
        self._wake.set()

    def _terminating(self, namespace: str) -> bool:
        record = self._record((_NAMESPACES, ("", namespace)))
        return record is not None and bool(record.header.deletionTimestamp)

    def _record(self, item: _Item) -> Record | None:
        return self._store.collection(item[0]).records.get(item[1])

    async def _collect(self, item: _Item) -> None:
        try:
            record, resource = self._record(item), self._registry.by_key(item[0])
            if record is None or resource is None:
                return
            if record.header.deletionTimestamp:
                if item[0] == _NAMESPACES:
                    await self._empty(resource, record)
                await self._finalize(resource, record)
            else:
                await self._check_owners(resource, record)
        except ObjectNotFoundError:
            return  # gone already
        except ObjectConflictError:
            self._mark(item)  # it changed meanwhile: look again
        except ApiError as error:
            log.warning("garbage collection failed, it is tried again", extra={"object": "/".join(item[1]), "error": str(error)})
            asyncio.get_running_loop().call_later(_RETRY_S, self._mark, item)

    async def _check_owners(self, resource: Resource, record: Record) -> None:
        """Without any living owner it goes, with some it loses the reference to the dead."""
        header = record.header
        dead = {owner.uid for owner in header.ownerReferences if not self._lives(owner.uid, record.key[0])}
        if not dead:
            return
        if len(dead) == len({owner.uid for owner in header.ownerReferences}):
            await self._writer.delete(resource, record.key, DeleteOptions(uid=header.uid, propagation="Background"))
        else:
            await self._writer.amend(resource, record.key, header.uid, lambda obj: _disown(obj, dead))

    def _lives(self, uid: str, namespace: str) -> bool:
        """An owner counts if it is cluster-wide or in the same namespace."""
        place = self._places.get(uid)
        return place is not None and place[1][0] in {"", namespace}

    async def _finalize(self, resource: Resource, record: Record) -> None:
        """Do what the finalizers of foreground and orphan deletion wait for."""
        header = record.header
        if _ORPHAN in header.finalizers:
            uids = {header.uid}
            await self._of_each_dependent(
                header.uid,
                lambda found, held: self._writer.amend(found, held.key, held.header.uid, lambda obj: _disown(obj, uids)),
            )
            await self._writer.amend(resource, record.key, header.uid, lambda obj: _drop_finalizer(obj, _ORPHAN))
        elif _FOREGROUND in header.finalizers:
            await self._of_each_dependent(header.uid, self._delete_dependent)
            if not self._blocked(header.uid):
                await self._writer.amend(resource, record.key, header.uid, lambda obj: _drop_finalizer(obj, _FOREGROUND))

    async def _delete_dependent(self, resource: Resource, record: Record) -> None:
        if not record.header.deletionTimestamp:
            await self._writer.delete(resource, record.key, DeleteOptions(uid=record.header.uid, propagation="Foreground"))

    async def _of_each_dependent(self, uid: str, act: Callable[[Resource, Record], Coroutine[Any, Any, object]]) -> None:
        for item in list(self._dependents.get(uid, ())):
            resource, record = self._registry.by_key(item[0]), self._record(item)
            if resource is not None and record is not None:
                try:
                    await act(resource, record)
                except ObjectNotFoundError:
                    continue

    def _blocked(self, uid: str) -> bool:
        """Whether a dependent that blocks the deletion of its owner is still there."""
        for item in self._dependents.get(uid, ()):
            record = self._record(item)
            owners = record.header.ownerReferences if record is not None else ()
            if any(owner.uid == uid and owner.blockOwnerDeletion for owner in owners):
                return True
        return False

    async def _empty(self, resource: Resource, record: Record) -> None:
        """Delete all that is in a namespace; once it is empty, the namespace goes, too."""
        namespace = record.key[1]
        left = []
        for found in self._registry:
            if found.kind.namespaced:
                keys = [key for key in self._store.collection(found.key).records if key[0] == namespace]
                left += [(found, key) for key in keys]
        for start in range(0, len(left), _AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for found, key in left[start : start + _AT_ONCE]:
                    group.create_task(self._delete_quietly(found, key))
        if not any(key[0] == namespace for found in self._registry for key in self._store.collection(found.key).records):
            await self._writer.amend(resource, record.key, record.header.uid, _drop_namespace_finalizer)

    async def _delete_quietly(self, resource: Resource, key: Key) -> None:
        try:
            await self._writer.delete(resource, key, DeleteOptions(propagation="Background"))
        except ObjectNotFoundError:
            return


def _disown(obj: Object, uids: set[str]) -> bool:
    owners = obj["metadata"].get("ownerReferences") or []
    left = [owner for owner in owners if owner.get("uid") not in uids]
    if len(left) == len(owners):
        return False
    obj["metadata"]["ownerReferences"] = left
    if not left:
        del obj["metadata"]["ownerReferences"]
    return True


def _drop_finalizer(obj: Object, name: str) -> bool:
    finalizers = obj["metadata"].get("finalizers") or []
    if name not in finalizers:
        return False
    obj["metadata"]["finalizers"] = [other for other in finalizers if other != name]
    if not obj["metadata"]["finalizers"]:
        del obj["metadata"]["finalizers"]
    return True


def _drop_namespace_finalizer(obj: Object) -> bool:
    obj["spec"] = {**(obj.get("spec") or {}), "finalizers": []}
    return True
