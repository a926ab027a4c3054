"""`metadata.managedFields`: who set which field, through which operation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eventing.apiserver.fieldsets import FieldSet, Schema, compare, difference, union
from eventing.resources.kinds import Object

__all__ = ["Manager", "Ownership", "owned_fields", "owned_part", "record_update"]

_TRACKED_METADATA: Final = ("labels", "annotations", "finalizers", "ownerReferences", "generateName")
_MAX_UPDATERS: Final = 10
_ANCIENT: Final = "ancient-changes"


@dataclass(frozen=True, slots=True)
class Manager:
    """One owner of fields."""

    name: str
    operation: str  # Apply | Update
    subresource: str = ""


def owned_part(obj: Object) -> Object:
    """The part of an object whose fields have owners."""
    metadata = obj.get("metadata") or {}
    part: Object = {"metadata": {name: metadata[name] for name in _TRACKED_METADATA if metadata.get(name)}}
    return part | {name: value for name, value in obj.items() if name not in {"apiVersion", "kind", "metadata"}}


def owned_fields(fields: FieldSet) -> FieldSet:
    """Without `metadata` itself, which nobody owns."""
    parts = {key: node for key, node in (fields.get("f:metadata") or {}).items() if key != "."}
    rest = {key: node for key, node in fields.items() if key != "f:metadata"}
    return {"f:metadata": parts, **rest} if parts else rest


class Ownership:
    """The entries of one object, by manager, in their order."""

    def __init__(self, api_version: str) -> None:
        self._api_version = api_version
        self._entries: dict[Manager, tuple[FieldSet, str]] = {}

    @classmethod
    def of(cls, obj: Object) -> "Ownership":
        """Those of an object; empty where it has none or they cannot be read."""
        ownership = cls(obj.get("apiVersion", ""))
        for entry in obj["metadata"].get("managedFields") or ():
            if not isinstance(entry, Mapping) or not _is_field_set(entry.get("fieldsV1")):
                return cls(obj.get("apiVersion", ""))
            manager = Manager(
                str(entry.get("manager", "")), str(entry.get("operation", "Update")), str(entry.get("subresource") or "")
            )
            ownership.set(manager, dict(entry["fieldsV1"]), str(entry.get("time", "")))
        return ownership

    def __bool__(self) -> bool:
        return bool(self._entries)

    def fields(self, manager: Manager) -> FieldSet:
        return self._entries.get(manager, ({}, ""))[0]

    def others(self, manager: Manager) -> dict[Manager, FieldSet]:
        return {other: fields for other, (fields, _) in self._entries.items() if other != manager}

    def set(self, manager: Manager, fields: FieldSet, time: str) -> None:
        """Give a manager its fields; without any, it is forgotten."""
        if fields:
            self._entries[manager] = (fields, time)
        else:
            self._entries.pop(manager, None)

    def withdraw(self, manager: Manager, fields: FieldSet) -> None:
        """Take fields from a manager; its time stays."""
        mine, time = self._entries.get(manager, ({}, ""))
        self.set(manager, difference(mine, fields), time)

    def encoded(self) -> list[dict[str, Any]]:
        """As `metadata.managedFields`; the oldest updaters beyond ten are merged into one."""
        self._merge_oldest()
        result = []
        for manager, (fields, time) in self._entries.items():
            entry = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": self._api_version,
                "time": time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
            if manager.subresource:
                entry["subresource"] = manager.subresource
            result.append({name: value for name, value in entry.items() if value != ""})
        return result

    def _merge_oldest(self) -> None:
        updaters = [(time, manager) for manager, (_, time) in self._entries.items() if manager.operation == "Update"]
        updaters.sort(key=lambda entry: entry[0])
        surplus = len(updaters) - _MAX_UPDATERS
        if surplus <= 0:
            return
        merged: FieldSet = {}
        latest = ""
        for time, manager in updaters[: surplus + 1]:
            merged = union(merged, self._entries.pop(manager)[0])
            latest = time
        self.set(Manager(_ANCIENT, "Update"), merged, latest)


def _is_field_set(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all((key == "." or key[1:2] == ":") and _is_field_set(node) for key, node in value.items())


def record_update(old: Object | None, new: Object, schema: Schema, manager: Manager, now: str) -> None:
    """Note in `new` who set what, after a write other than an apply.

    A client may edit the list itself (kubectl does so when it migrates from client-side apply): what `new` brings counts, an
    empty list or none means the old one, `[{}]` means none.
    """
    given = new["metadata"].get("managedFields")
    if old is not None and manager.subresource:
        given = old["metadata"].get("managedFields")
    if given == [{}]:
        ownership = Ownership(new.get("apiVersion", ""))
    else:
        ownership = Ownership.of({**new, "metadata": {"managedFields": given}})
        if not ownership and old is not None:
            ownership = Ownership.of(old)
    if old is not None and not ownership:
        new["metadata"].pop("managedFields", None)  # nobody applies it: tracking begins with the first apply
        return
    changed, removed = map(owned_fields, compare(owned_part(old or {}), owned_part(new), schema))
    if changed or removed:
        gone = union(changed, removed)
        for other in ownership.others(manager):
            ownership.withdraw(other, gone)
        ownership.set(manager, union(difference(ownership.fields(manager), removed), changed), now)
    new["metadata"]["managedFields"] = ownership.encoded()
