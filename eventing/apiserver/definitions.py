"""Serving the kinds of CustomResourceDefinitions: names accepted, conditions written, objects removed with their definition."""

import asyncio
import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from eventing.apiserver.crd import CLEANUP, CUSTOM_RESOURCE_DEFINITION, defined_resource, limits
from eventing.apiserver.failures import qualified
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.requests import Options, Request
from eventing.apiserver.schema import Findings
from eventing.apiserver.store import Change, Key, Record, Store
from eventing.apiserver.watching import Watches
from eventing.apiserver.writing import DeleteOptions, Writer
from eventing.errors import ApiError, ObjectNotFoundError
from eventing.resources.crds import crd
from eventing.resources.kinds import Object

__all__ = ["Definitions"]

log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_AT_ONCE: Final = 64


class Definitions:
    """Keeps the registry in step with the definitions. Those of the built-in kinds are there to be seen, not to be changed."""

    def __init__(self, store: Store, registry: Registry, writer: Writer, watches: Watches, *, now: Callable[[], str]) -> None:
        self._store = store
        self._registry = registry
        self._writer = writer
        self._watches = watches
        self._now = now
        self._built_in = {resource.key: resource for resource in registry if resource.kind.group}
        self._resource = Resource(CUSTOM_RESOURCE_DEFINITION)
        registry.add(self._resource)
        self._served: dict[str, Resource] = {}  # by name of the definition
        self._to_complete: set[str] = set()  # names whose objects were stored under another schema, as far as we know
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        for record in store.collection(self._resource.key).sorted():
            self._take(record)
        store.observers.append(self._observe)

    def protects(self, resource: Resource, key: Key) -> bool:
        """Whether an object is the definition of a built-in kind, which cannot be deleted."""
        return resource is self._resource and key[1] in self._built_in

    async def show_built_in(self, request: Request) -> None:
        """Make the definitions of the built-in kinds, so that clients find them (`kubectl get crds`, duck types by label)."""
        options = Options(manager="eventing-apiserver", validation="Ignore")
        for name, resource in self._built_in.items():
            wanted = crd(resource.kind)
            record = self._store.latest(self._resource.key, ("", name))
            if record is None:
                await self._writer.create(self._resource, "", wanted, options, request)
            else:
                key = ("", name)
                await self._writer.update(self._resource, key, partial(_renewed, wanted), options, request)

    async def run(self) -> None:
        """Write conditions and clean up until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                try:
                    await self._settle(name)
                except ApiError as error:
                    log.warning("a definition is not settled, it is tried again", extra={"crd": name, "error": str(error)})
                    asyncio.get_running_loop().call_later(_RETRY_S, self._mark, name)

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    def _observe(self, change: Change) -> None:
        if change.resource == self._resource.key:
            if change.removed:
                self._withdraw(change.record.key[1])
            else:
                self._take(change.record)
        elif change.removed and change.resource in self._served:
            record = self._store.collection(self._resource.key).records.get(("", change.resource))
            if record is not None and record.header.deletionTimestamp:
                self._mark(change.resource)

    def _take(self, record: Record) -> None:
        """Serve what a definition asks for, unless its names are taken."""
        name = record.key[1]
        self._mark(name)
        if name in self._built_in:
            return
        definition: Object = msgspec.json.decode(record.data)
        current = self._served.get(name)
        resource = defined_resource(definition)
        if resource is not None and (current is None or current.schema != resource.schema or current.kind != resource.kind):
            self._withdraw(name)
            if not self._conflicts(resource):
                self._registry.add(resource)
                self._served[name] = resource
                self._to_complete.add(name)
        elif resource is None:
            self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        resource = self._served.pop(name, None)
        if resource is not None:
            self._registry.remove(resource)
            self._watches.stop(resource)

    def _conflicts(self, resource: Resource) -> str:
        """Why the names cannot be had: another kind of the group has them."""
        mine = {resource.kind.plural, resource.singular, *resource.kind.short_names}
        for other in self._registry:
            if other.kind.group == resource.kind.group and other.key != resource.key:
                if other.kind.kind == resource.kind.kind:
                    return f'"{resource.kind.kind}" is already in use by {qualified(other.kind)}'
                for name in sorted(mine & {other.kind.plural, other.singular, *other.kind.short_names}):
                    return f'"{name}" is already in use by {qualified(other.kind)}'
        return ""

    async def _settle(self, name: str) -> None:
        record = self._store.collection(self._resource.key).records.get(("", name))
        if record is None:
            return
        if record.header.deletionTimestamp:
            await self._clean_up(name, record)
            return
        definition: Object = msgspec.json.decode(record.data)
        wanted = None if name in self._built_in or name in self._served else defined_resource(definition)
        if wanted is not None and not self._conflicts(wanted):
            self._take(record)  # the names have become free
            wanted = None
        conflict = self._conflicts(wanted) if wanted is not None else ""
        await self._writer.amend(
            self._resource, record.key, record.header.uid, lambda obj: _write_status(obj, conflict, self._now())
        )
        if name in self._to_complete and (resource := self._served.get(name)) is not None:
            self._to_complete.discard(name)
            await self._complete(resource)

    async def _complete(self, resource: Resource) -> None:
        """Give the objects that are there already the defaults of the schema. Kubernetes does so whenever it reads one."""
        for key, record in list(self._store.collection(resource.key).records.items()):
            await self._writer.amend(resource, key, record.header.uid, partial(_complete, resource))

    async def _clean_up(self, name: str, record: Record) -> None:
        """Remove all objects of the kind, then let the definition go."""
        resource = self._served.get(name)
        if resource is not None:
            keys = list(self._store.collection(resource.key).records)
            for start in range(0, len(keys), _AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for key in keys[start : start + _AT_ONCE]:
                        group.create_task(self._delete(resource, key))
            if self._store.collection(resource.key).records:
                return  # some have finalizers: their removal brings us back
        await self._writer.amend(self._resource, record.key, record.header.uid, _drop_cleanup)

    async def _delete(self, resource: Resource, key: Key) -> None:
        try:
            await self._writer.delete(resource, key, DeleteOptions(propagation="Background"))
        except ObjectNotFoundError:
            return


def _complete(resource: Resource, obj: Object) -> bool:
    walked = copy.deepcopy(obj)
    resource.node.walk(walked, "", Findings())
    return _add_missing(obj, walked)


def _add_missing(obj: Any, walked: Any) -> bool:
    """Take over what a walk has filled in; not what it has pruned, which an earlier edition of the definition may want back."""
    added = False
    if isinstance(obj, dict) and isinstance(walked, dict):
        for name, value in walked.items():
            if name in obj:
                added |= _add_missing(obj[name], value)
            else:
                obj[name] = value
                added = True
    elif isinstance(obj, list) and isinstance(walked, list):
        for item, value in zip(obj, walked, strict=True):
            added |= _add_missing(item, value)
    return added


def _renewed(wanted: Object, obj: Object) -> Object:
    obj["spec"] = wanted["spec"]
    if labels := wanted["metadata"].get("labels"):
        obj["metadata"]["labels"] = {**(obj["metadata"].get("labels") or {}), **labels}
    return obj


def _drop_cleanup(obj: Object) -> bool:
    finalizers = obj["metadata"].get("finalizers") or []
    obj["metadata"]["finalizers"] = [name for name in finalizers if name != CLEANUP]
    return True


def _write_status(obj: Object, conflict: str, now: str) -> bool:
    """Write the conditions if they are not so already."""
    status = obj.get("status") or {}
    if conflict:
        accepted = ("False", "NamesConflict", conflict)
        established = ("False", "NotAccepted", "not all names are accepted")
    else:
        accepted = ("True", "NoConflicts", "no conflicts found")
        text = "; ".join(filter(None, ("the initial names have been accepted", limits(obj))))
        established = ("True", "InitialNamesAccepted", text)
    before = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    conditions = []
    for kind, (value, reason, message) in (("NamesAccepted", accepted), ("Established", established)):
        found = before.get(kind, {})
        since = found.get("lastTransitionTime", now) if found.get("status") == value else now
        conditions.append({"type": kind, "status": value, "lastTransitionTime": since, "reason": reason, "message": message})
    names = {} if conflict else obj["spec"]["names"]
    stored = [version["name"] for version in obj["spec"]["versions"] if version["storage"]]
    versions = list(dict.fromkeys([*(status.get("storedVersions") or ()), *stored]))
    wanted = {"acceptedNames": names or {"kind": "", "plural": ""}, "conditions": conditions, "storedVersions": versions}
    if wanted == status:
        return False
    obj["status"] = wanted
    return True
