"""Server-side apply: the fields a manager sends are its own; those that it stops sending go, unless others have them, too."""

from typing import Any, Final

import msgspec

from eventing.apiserver.failures import bad_request, failure
from eventing.apiserver.fieldsets import (
    FieldSet,
    Schema,
    below,
    compare,
    difference,
    element_key,
    field_set,
    intersection,
    list_form,
    members,
    path_text,
    union,
)
from eventing.apiserver.managedfields import Manager, Ownership, owned_part
from eventing.resources.kinds import Object

__all__ = ["LAST_APPLIED", "applied"]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL: Final = "kubectl"


def applied(live: Object | None, config: Object, schema: Schema, manager: Manager, *, force: bool, now: str) -> Object:
    """The object after `config` was applied by `manager`, its managedFields included; neither input is altered.

    Raises 409 with a cause per field where another manager has another value, unless `force`.
    """
    if config["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    mine = owned_part(config)
    fields = field_set(mine, schema)
    if live is None:
        ownership = Ownership(config["apiVersion"])
        ownership.set(manager, fields, now)
        return {**config, "metadata": {**config["metadata"], "managedFields": ownership.encoded()}}
    ownership = Ownership.of(live)
    before = owned_part(live)
    if not ownership:
        ownership.set(Manager("before-first-apply", "Update"), field_set(before, schema, parents=True), now)
    others: FieldSet = {}
    for theirs in ownership.others(manager).values():
        others = union(others, theirs)
    after = _merge(before, mine, schema)
    kept = union(others, fields)
    after = _remove(after, difference(ownership.fields(manager), kept), kept, schema) or {}
    changed, _ = compare(before, after, schema)
    conflicts = {other: both for other, theirs in ownership.others(manager).items() if (both := intersection(theirs, changed))}
    if conflicts and not force:
        allowed = _allowed(live, before, schema) if manager.name == _KUBECTL else {}
        refused = {other: left for other, both in conflicts.items() if (left := difference(both, allowed))}
        if refused:
            raise _conflict(refused, config["apiVersion"])
    for other, both in conflicts.items():
        ownership.withdraw(other, both)
    same = not changed and ownership.fields(manager) == fields and after == before
    if not same:
        ownership.set(manager, fields, now)
    new = _restored(live, after)
    annotations = new["metadata"].get("annotations") or {}
    given = (mine.get("metadata") or {}).get("annotations") or {}
    if manager.name == _KUBECTL and LAST_APPLIED in annotations and LAST_APPLIED not in given:
        text = msgspec.json.encode({**config, "metadata": _without_last_applied(config["metadata"])}).decode()
        new["metadata"]["annotations"] = {**annotations, LAST_APPLIED: f"{text}\n"}
    new["metadata"]["managedFields"] = ownership.encoded()
    return new


def _without_last_applied(metadata: Object) -> Object:
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    return {**metadata, "annotations": annotations}


def _restored(live: Object, after: Object) -> Object:
    """The whole object around its owned part."""
    tracked = after.get("metadata") or {}
    kept = {name: value for name, value in live["metadata"].items() if name not in owned_part(live).get("metadata", {})}
    whole = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {**kept, **tracked}}
    return whole | {name: value for name, value in after.items() if name != "metadata"}


def _merge(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        result = dict(live)
        for name, value in config.items():
            result[name] = _merge(result.get(name), value, below(schema, name))
        return result
    if isinstance(config, list) and isinstance(live, list) and list_form(schema) != "atomic":
        items = schema.get("items") or {}
        merged = {element_key(item, schema): item for item in live}
        for item in config:
            key = element_key(item, schema)
            if key is None:
                raise bad_request(f"an element of a list lacks its keys: {schema.get('x-kubernetes-list-map-keys')}")
            merged[key] = _merge(merged.get(key), item, items)
        return list(merged.values())
    return config


def _remove(value: Any, gone: FieldSet, kept: FieldSet, schema: Schema) -> Any:
    """The value without the fields of `gone`; None where nothing is left.

    What is in `kept` stays, and so does what holds it: objects, elements of lists with their keys.
    """
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            key = f"f:{name}"
            left = _left(item, gone.get(key), kept.get(key), below(schema, name))
            if left is not None:
                result[name] = left
        return result or (None if value else value)
    if isinstance(value, list):
        items = schema.get("items") or {}
        rest = []
        for item in value:
            key = element_key(item, schema) or ""
            theirs = kept.get(key)
            left = _left(item, gone.get(key), theirs, items)
            if left is not None:
                keys = schema.get("x-kubernetes-list-map-keys") or ()
                rest.append({**{name: item[name] for name in keys if name in item}, **left} if isinstance(item, dict) else left)
        return rest or (None if value else value)
    return value


def _left(item: Any, gone: FieldSet | None, kept: FieldSet | None, schema: Schema) -> Any:
    if gone is None:
        return item
    if (not gone or "." in gone) and kept is None:
        return None
    return _remove(item, gone, kept or {}, schema) if gone else item


def _allowed(live: Object, before: Object, schema: Schema) -> FieldSet:
    """Fields that kubectl set by client-side apply and nobody changed since: it may take them over."""
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return {}
    try:
        last = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    if not isinstance(last, dict) or not isinstance(last.get("metadata"), dict):
        return {}
    part = owned_part(last)
    fields = field_set(part, schema)
    changed, _ = compare(before, _merge(before, part, schema), schema)
    return difference(fields, changed)


def _conflict(conflicts: dict[Manager, FieldSet], api_version: str) -> Exception:
    causes, texts = [], []
    for manager, fields in conflicts.items():
        by = f'conflict with "{manager.name}"' + (f' with subresource "{manager.subresource}"' if manager.subresource else "")
        message = f"{by} using {api_version}"
        paths = sorted(path_text(path) for path in members(fields))
        causes += [{"reason": "FieldManagerConflict", "message": message, "field": path} for path in paths]
        texts.append(f"{message}: {paths[0]}" if len(paths) == 1 else f"{message}:\n" + "\n".join(f"- {path}" for path in paths))
    count = len(causes)
    text = texts[0] if len(texts) == 1 else "conflicts with " + "\n".join(texts)
    noun = "conflict" if count == 1 else "conflicts"
    return failure(409, "Conflict", f"Apply failed with {count} {noun}: {text}", {"causes": causes})
