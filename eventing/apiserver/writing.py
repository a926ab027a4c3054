"""The verbs that write: create, update, patch, delete.

Each reads the object and stages its successor without a pause in between, so writes through this server never race; a stale
`resourceVersion` is refused with 409.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgspec

from eventing.apiserver.admission import Admitter, same_json, spec_differs
from eventing.apiserver.apply import applied
from eventing.apiserver.failures import (
    Cause,
    bad_request,
    conflict,
    exists,
    forbidden,
    invalid,
    modified,
    not_found,
    qualified,
    success,
)
from eventing.apiserver.managedfields import Manager, record_update
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.requests import Options, Request
from eventing.apiserver.store import Key, Record, Store
from eventing.resources.kinds import Object

__all__ = ["PROTECTED_NAMESPACES", "DeleteOptions", "Writer"]

PROTECTED_NAMESPACES: Final = frozenset({"default", "knative-eventing", "kube-public", "kube-system"})
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5
_MAX_PREFIX: Final = 63 - _SUFFIX_LENGTH
_NAME_ATTEMPTS: Final = 8
_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete: what must still hold, what becomes of dependents."""

    uid: str = ""
    version: str = ""
    propagation: str = ""  # Background | Foreground | Orphan
    dry_run: bool = False


def encoder(obj: Object) -> Callable[[int], bytes]:
    """For the store: the object's bytes once its version is known."""

    def encode(version: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(version)
        return _encode(obj)

    return encode


class Writer:
    """All writes go through here. `now` is the time as Kubernetes writes it."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        admitter: Admitter,
        *,
        now: Callable[[], str],
        new_uid: Callable[[], str],
        random: Random,
    ) -> None:
        self._store = store
        self._registry = registry
        self._admitter = admitter
        self._now = now
        self._new_uid = new_uid
        self._random = random
        self.protects: Callable[[Resource, Key], bool] = lambda _resource, _key: False  # from deletion

    async def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Object,
        options: Options,
        request: Request,
        *,
        name: str = "",
        by_apply: bool = False,
    ) -> bytes:
        """POST, or an apply of something new. Returns the object."""
        self._admitter.identify(resource, obj, namespace, name)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for field in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
            metadata.pop(field, None)
        if not by_apply:
            metadata.pop("managedFields", None)
        made_up = not metadata.get("name") and self._make_name(resource, namespace, metadata)
        if resource.kind.status and not by_apply:
            obj.pop("status", None)
        metadata.update(uid=self._new_uid(), creationTimestamp=self._now())
        if resource.generations:
            metadata["generation"] = 1
        else:
            metadata.pop("generation", None)
        self._check_namespace(resource, namespace, metadata["name"])
        self._admitter.admit(resource, obj, None, options, request, quiet=by_apply)
        key = (namespace, metadata["name"])
        if self._store.latest(resource.key, key) is not None:
            raise exists(resource.kind, metadata["name"], generated=made_up)
        if not by_apply:
            record_update(None, obj, resource.schema, Manager(options.manager, "Update"), self._now())
        if options.dry_run:
            return _encode(_ordered(obj))
        return (await self._store.put(resource.key, key, encoder(_ordered(obj)))).data

    def _make_name(self, resource: Resource, namespace: str, metadata: Object) -> bool:
        prefix = metadata.get("generateName")
        if not isinstance(prefix, str) or not prefix:
            text = "Required value: name or generateName is required"
            raise invalid(resource.kind, "", [Cause("FieldValueRequired", text, "metadata.name")])
        for _ in range(_NAME_ATTEMPTS):
            metadata["name"] = prefix[:_MAX_PREFIX] + "".join(self._random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
            if self._store.latest(resource.key, (namespace, metadata["name"])) is None:
                break
        return True

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        """Objects are made only in namespaces that exist and are to stay."""
        if not resource.kind.namespaced:
            return
        namespaces = self._registry.find("", "v1", "namespaces")
        if namespaces is None:
            return
        record = self._store.latest(namespaces.key, ("", namespace))
        if record is None:
            raise not_found(namespaces.kind, namespace)
        if record.header.deletionTimestamp:
            kind = resource.kind
            because = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise forbidden(
                f'{qualified(kind)} "{name}" is forbidden: {because}',
                {"name": name, "group": kind.group, "kind": kind.plural, "causes": [cause]},
            )

    async def update(
        self,
        resource: Resource,
        key: Key,
        change: Callable[[Object], Any],
        options: Options,
        request: Request,
        *,
        subresource: str = "",
        by_apply: bool = False,
        whole: bool = False,
    ) -> bytes:
        """PUT and PATCH: store what `change` makes of the object, which it may alter. Returns the object after it.

        `whole`: the client sent a whole object (PUT), so one of a custom kind must say which version it replaces.
        """
        record = self._store.latest(resource.key, key)
        if record is None:
            raise not_found(resource.kind, key[1])
        new = change(_decode(record.data))
        if not isinstance(new, dict):
            raise bad_request("the patch does not leave an object")
        old = _decode(record.data)
        new = self._successor(resource, record, old, new, options, request, subresource, by_apply=by_apply, whole=whole)
        if options.dry_run:
            return _encode(new)
        if _unchanged(old, new):
            await self._settled(resource, key)
            return record.data
        if _is_gone(resource, new):
            return (await self._store.remove(resource.key, key, encoder(new))).data
        return (await self._store.put(resource.key, key, encoder(new))).data

    async def _settled(self, resource: Resource, key: Key) -> None:
        """What is answered as unchanged must be on the disk, too."""
        while (pending := self._store.pending(resource.key, key)) is not None:
            await asyncio.wait([pending])

    def _successor(
        self,
        resource: Resource,
        record: Record,
        old: Object,
        new: Object,
        options: Options,
        request: Request,
        subresource: str,
        *,
        by_apply: bool,
        whole: bool,
    ) -> Object:
        """The object as it is to be stored: checked, completed, and with what the client may not change as it was."""
        namespace, name = record.key
        self._admitter.identify(resource, new, namespace, name)
        version = new["metadata"].get("resourceVersion")
        if whole and resource.generations and not version:
            text = "Invalid value: 0x0: must be specified for an update"
            raise invalid(resource.kind, name, [Cause("FieldValueInvalid", text, "metadata.resourceVersion")])
        if version and version != str(record.version):
            raise modified(resource.kind, name)
        if subresource:
            managed = new["metadata"].get("managedFields")
            new = {**old, "metadata": {**old["metadata"]}, "status": new.get("status")}
            if by_apply and managed is not None:
                new["metadata"]["managedFields"] = managed
            if new["status"] is None:
                del new["status"]
        elif resource.kind.status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = _decode(_encode(old["status"]))
        self._admitter.carry_over(resource, old, new)
        new["metadata"]["resourceVersion"] = str(record.version)
        if subresource:
            self._admitter.admit_status(resource, new, options, request)
        else:
            self._admitter.admit(resource, new, old, options, request, quiet=by_apply)
        if resource.generations and not subresource and spec_differs(old, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if not by_apply:
            record_update(old, new, resource.schema, Manager(options.manager, "Update", subresource), self._now())
        if not new["metadata"].get("managedFields"):
            new["metadata"].pop("managedFields", None)
        return _ordered(new)

    async def apply(
        self, resource: Resource, key: Key, config: Object, options: Options, request: Request, *, subresource: str = ""
    ) -> tuple[int, bytes]:
        """Server-side apply. Returns (201 if the object is new, else 200; the object)."""
        namespace, name = key
        self._admitter.identify(resource, config, namespace, name)
        self._admitter.check_partial(resource, config, options, request)
        if subresource:
            config = {name: config[name] for name in ("apiVersion", "kind", "status") if name in config} | {
                "metadata": {name: config["metadata"][name] for name in ("name", "namespace") if name in config["metadata"]}
            }
        elif resource.kind.status:
            config.pop("status", None)
        manager = Manager(options.manager, "Apply", subresource)
        if self._store.latest(resource.key, key) is None:
            if subresource:
                raise not_found(resource.kind, name)
            if config["metadata"].get("uid"):
                text = "uid mismatch: the provided object specified uid, and no existing object was found"
                raise conflict(resource.kind, name, text)
            new = applied(None, config, resource.schema, manager, force=options.force, now=self._now())
            new = _decode(_encode(new))
            return 201, await self.create(resource, namespace, new, options, request, name=name, by_apply=True)

        def change(live: Object) -> Object:
            version, uid = config["metadata"].get("resourceVersion"), config["metadata"].get("uid")
            result = applied(live, config, resource.schema, manager, force=options.force, now=self._now())
            copy: Object = _decode(_encode(result))
            if version:
                copy["metadata"]["resourceVersion"] = version
            if uid:
                copy["metadata"]["uid"] = uid
            return copy

        return 200, await self.update(resource, key, change, options, request, subresource=subresource, by_apply=True)

    async def delete(self, resource: Resource, key: Key, options: DeleteOptions) -> Object:
        """Delete, or mark as being deleted what has finalizers. Returns the Status of the one, the object of the other."""
        kind, name = resource.kind, key[1]
        record = self._store.latest(resource.key, key)
        if record is None:
            raise not_found(kind, name)
        obj: Object = _decode(record.data)
        metadata = obj["metadata"]
        version = str(record.version)
        for what, wanted, found in (("UID", options.uid, metadata["uid"]), ("ResourceVersion", options.version, version)):
            if wanted and wanted != found:
                text = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                raise conflict(kind, name, text)
        is_namespace = resource.key == "namespaces"
        if (is_namespace and name in PROTECTED_NAMESPACES) or self.protects(resource, key):
            what = "this namespace" if is_namespace else "what is built in"
            text = f'{qualified(kind)} "{name}" is forbidden: {what} may not be deleted'
            raise forbidden(text, {"name": name, "group": kind.group, "kind": kind.plural})
        marker = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(options.propagation)
        if marker and marker not in metadata.get("finalizers", ()):
            metadata["finalizers"] = [*metadata.get("finalizers", ()), marker]
        elif metadata.get("deletionTimestamp"):
            return obj
        if not metadata.get("finalizers") and not is_namespace:
            if not options.dry_run:
                await self._store.remove(resource.key, key, encoder(obj))
            return success(kind, name, metadata["uid"])
        if not metadata.get("deletionTimestamp"):
            metadata.update(deletionTimestamp=self._now(), deletionGracePeriodSeconds=0)
            if resource.generations:
                metadata["generation"] = metadata.get("generation", 0) + 1
        if is_namespace:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        if not options.dry_run:
            await self._store.put(resource.key, key, encoder(obj))
        return obj

    async def amend(self, resource: Resource, key: Key, uid: str, change: Callable[[Object], bool]) -> bool:
        """A change by the server itself (garbage collection, conditions), without admission.

        `change` alters the object and says whether it did. Returns whether the object, by its uid, was still there. An object
        that is being deleted and has no finalizers left is removed.
        """
        record = self._store.latest(resource.key, key)
        if record is None or record.header.uid != uid:
            return False
        obj: Object = _decode(record.data)
        if not change(obj):
            return True
        if _is_gone(resource, obj):
            await self._store.remove(resource.key, key, encoder(obj))
        else:
            await self._store.put(resource.key, key, encoder(_ordered(obj)))
        return True


def _ordered(obj: Object) -> Object:
    """With the fields in the order in which people read them."""
    first = {name: obj[name] for name in ("apiVersion", "kind", "metadata")}
    rest = {name: value for name, value in obj.items() if name not in first and name != "status"}
    return {**first, **rest, **({"status": obj["status"]} if "status" in obj else {})}


def _is_gone(resource: Resource, obj: Object) -> bool:
    """Whether nothing keeps an object that is being deleted."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    is_namespace = resource.key == "namespaces"
    return not (is_namespace and (obj.get("spec") or {}).get("finalizers"))


def _unchanged(old: Object, new: Object) -> bool:
    """Whether a write would change nothing but times in managedFields. Such a write is not done."""
    if old.keys() != new.keys() or not all(same_json(old[name], new[name]) for name in old if name != "metadata"):
        return False
    before, after = old["metadata"], new["metadata"]
    if before.keys() != after.keys() or any(before[name] != after[name] for name in before if name != "managedFields"):
        return False
    return _timeless(before.get("managedFields")) == _timeless(after.get("managedFields"))


def _timeless(entries: Any) -> list[Object]:
    return [{name: value for name, value in entry.items() if name != "time"} for entry in entries or ()]
