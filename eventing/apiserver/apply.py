"""Server-side apply: the fields a manager sends are its own; those that it stops sending go, unless others have them, too."""

from typing import Any, Final

import msgspec

from eventing.apiserver.failures import bad_request, failure
from eventing.apiserver.fieldsets import (
    Emptied,
    FieldSet,
    Schema,
    below,
    compare,
    difference,
    element_key,
    field_set,
    intersection,
    is_member,
    list_form,
    members,
    named,
    path_text,
    union,
)
from eventing.apiserver.managedfields import Manager, Ownership, owned_fields, owned_part
from eventing.resources.kinds import Object

__all__ = ["LAST_APPLIED", "applied"]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL: Final = "kubectl"


def applied(live: Object | None, config: Object, schema: Schema, manager: Manager, *, force: bool, now: str) -> Object:
    """The object after `config` was applied by `manager`, its managedFields included; neither input is altered.

    Raises 409 with a cause per field where another manager has another value, unless `force`. The steps are those of
    structured-merge-diff's Updater.Apply, so that the outcome is the same.
    """
    if config["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    mine = owned_part(config)
    fields = owned_fields(field_set(mine, schema))
    if live is None:
        ownership = Ownership(config["apiVersion"])
        ownership.set(manager, fields, now)
        return {**config, "metadata": {**config["metadata"], "managedFields": ownership.encoded()}}
    ownership = Ownership.of(live)
    before = owned_part(live)
    if not ownership:
        changed, _ = compare(owned_part({}), before, schema)
        ownership.set(Manager("before-first-apply", "Update"), owned_fields(changed), now)
    others = ownership.others(manager)
    kept = fields
    for theirs in others.values():
        kept = union(kept, theirs)
    last = ownership.fields(manager)
    after = _merge(before, mine, schema)
    if difference(last, kept):
        after = _prune(after, last, kept, schema)
    changed, removed = compare(before, after, schema)
    conflicts = {other: both for other, theirs in others.items() if (both := intersection(theirs, changed))}
    if conflicts and not force:
        allowed = _allowed(live, before, schema) if manager.name == _KUBECTL else {}
        refused = {other: left for other, both in conflicts.items() if (left := difference(both, allowed))}
        if refused:
            raise _conflict(refused, config["apiVersion"])
    lost = union(changed, removed)
    for other in others:
        ownership.withdraw(other, lost)
    if last != fields or after != before:
        ownership.set(manager, fields, now)
    new = _restored(live, _settled(after, kept, schema))
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


def _settled(value: Any, kept: FieldSet, schema: Schema) -> Any:
    """With what lost everything that was in it: empty where a manager has the field as such, else gone."""
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            node = kept.get(f"f:{name}")
            if not isinstance(item, Emptied):
                result[name] = _settled(item, node or {}, below(schema, name))
            elif node is not None and is_member(node):
                result[name] = item.was()
        return result
    if isinstance(value, list) and list_form(schema) != "atomic":
        items = schema.get("items") or {}
        return [_settled(item, kept.get(element_key(item, schema) or "") or {}, items) for item in value]
    return value


def _merge(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        result = dict(live)
        for name, value in config.items():
            result[name] = _merge(result[name], value, below(schema, name)) if name in result else value
        return result
    if isinstance(config, list) and isinstance(live, list) and list_form(schema) != "atomic":
        items = schema.get("items") or {}
        ours = {element_key(item, schema): item for item in live}
        theirs = {element_key(item, schema): item for item in config}
        if None in theirs:
            raise bad_request(f"an element of a list lacks its keys: {schema.get('x-kubernetes-list-map-keys')}")
        merged = {key: _merge(ours[key], item, items) if key in ours else item for key, item in theirs.items()}
        return [merged[key] if key in merged else ours[key] for key in _order(list(ours), list(theirs))]
    return config


def _order(live: list[str | None], config: list[str | None]) -> list[str | None]:
    """The configuration's order for its own elements; each other one stays before the element that it was before."""
    result: list[str | None] = []
    shared = [key for key in config if key in set(live)]
    given = iter(config)
    waiting = next(given, None)
    done: set[str | None] = set()
    for key in live:
        if key not in set(config):
            result.append(key)
        elif key not in done and shared and key == shared[0]:
            while waiting is not None:
                result.append(waiting)
                done.add(waiting)
                arrived = waiting == key
                waiting = next(given, None)
                if arrived:
                    break
            shared = [each for each in shared if each not in done]
    while waiting is not None:
        result.append(waiting)
        waiting = next(given, None)
    return result


def _prune(merged: Any, last: FieldSet, kept: FieldSet, schema: Schema) -> Any:
    """Take out what the manager applied the last time, but not now, and what nobody else has."""
    last = named(last, schema)
    before = named(field_set(merged, schema), schema)

    def without(gone: FieldSet) -> Any:
        rest = _remove(merged, gone, schema)
        return {} if isinstance(rest, Emptied) else rest

    def left(value: Any) -> FieldSet:
        return named(field_set(value, schema), schema)

    pruned = without(last)
    pruned = without(difference(before, union(left(pruned), named(kept, schema))))
    return without(intersection(difference(before, left(pruned)), last))


def _remove(value: Any, gone: FieldSet, schema: Schema) -> Any:
    """The value without the fields of a set; Emptied where nothing is left of it."""
    if isinstance(value, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return Emptied(dict)
        result = {}
        for name, item in value.items():
            node = gone.get(f"f:{name}")
            if node is None:
                result[name] = item
            elif not is_member(node):
                result[name] = _remove(item, node, below(schema, name))
        return result or Emptied(dict)
    if isinstance(value, list):
        if list_form(schema) == "atomic":
            return Emptied(list)
        rest = []
        for item in value:
            node = gone.get(element_key(item, schema) or "")
            if node is None:
                rest.append(item)
            elif not is_member(node):
                rest.append(_remove(item, node, schema.get("items") or {}))
        return rest or Emptied(list)
    return value


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
    changed, removed = compare(part, before, schema)
    return difference(owned_fields(field_set(part, schema)), union(changed, removed))


def _conflict(conflicts: dict[Manager, FieldSet], api_version: str) -> Exception:
    causes: list[dict[str, str]] = []
    texts = []
    for manager, fields in sorted(conflicts.items(), key=lambda entry: (entry[0].name, entry[0].operation)):
        by = f'"{manager.name}"' + (f' with subresource "{manager.subresource}"' if manager.subresource else "")
        by += f" using {api_version}" if manager.operation == "Update" else ""
        paths = sorted(path_text(path) for path in members(fields))
        causes += [{"reason": "FieldManagerConflict", "message": f"conflict with {by}", "field": path} for path in paths]
        texts += [f"conflicts with {by}:", *(f"- {path}" for path in paths)]
    if len(causes) == 1:
        text = f"1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        text = f"{len(causes)} conflicts: " + "\n".join(texts)
    return failure(409, "Conflict", f"Apply failed with {text}", {"causes": causes})
