r"""Sets of fields in the form of FieldsV1: `{"f:spec": {"f:replicas": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}`.

A node is a member of the set if it is empty or holds ".". Kubernetes, "Server-Side Apply"; the rules are those of
structured-merge-diff. Schemas decide what is one value: lists without `x-kubernetes-list-type: map|set` and objects with
`x-kubernetes-map-type: atomic`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

__all__ = [
    "FieldSet",
    "Schema",
    "below",
    "compare",
    "difference",
    "element_key",
    "field_set",
    "intersection",
    "list_form",
    "members",
    "path_text",
    "union",
]

FieldSet = dict[str, Any]
Schema = Mapping[str, Any]

_OPEN: Final[Schema] = {}
_SELF: Final = "."


def below(schema: Schema, name: str) -> Schema:
    """The schema of a field."""
    found = (schema.get("properties") or {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else _OPEN


def list_form(schema: Schema) -> str:
    """How a list merges: map, set or atomic."""
    form = schema.get("x-kubernetes-list-type")
    return form if form in {"map", "set"} else "atomic"


def element_key(item: Any, schema: Schema) -> str | None:
    """The path element of an item of a map or set list; None where it lacks its keys."""
    if list_form(schema) == "set":
        return f"v:{msgspec.json.encode(item).decode()}"
    if not isinstance(item, dict):
        return None
    properties = (schema.get("items") or {}).get("properties") or {}
    values = {}
    for key in sorted(schema.get("x-kubernetes-list-map-keys") or ()):
        value = item.get(key, (properties.get(key) or {}).get("default"))
        if value is not None:
            values[key] = value
    return f"k:{msgspec.json.encode(values).decode()}" if values else None


def _atomic(value: Any, schema: Schema) -> bool:
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") == "atomic"
    return not isinstance(value, list) or list_form(schema) == "atomic"


def field_set(value: Any, schema: Schema, *, parents: bool = False) -> FieldSet:
    """All fields of a value. With `parents`, objects that hold fields are members, too (as in a comparison)."""
    if _atomic(value, schema) or not value:
        return {}
    result: FieldSet = {}
    if isinstance(value, dict):
        declared = schema.get("properties") or {}
        for name, item in value.items():
            node = field_set(item, below(schema, name), parents=parents)
            if node and (parents or name not in declared) and isinstance(item, dict):
                node[_SELF] = {}
            result[f"f:{name}"] = node
        return result
    items = schema.get("items") or _OPEN
    for item in value:
        key = element_key(item, schema)
        if key is not None:
            node = field_set(item, items, parents=parents) if isinstance(item, dict) else {}
            result[key] = {_SELF: {}, **node} if node else {}
    return result


_NONE: Final = object()


def compare(old: Any, new: Any, schema: Schema) -> tuple[FieldSet, FieldSet]:
    """(what was added or changed, what was removed) between two versions of an object."""
    changed, removed = _compare(old, new, schema)
    return changed or {}, removed or {}


def _compare(old: Any, new: Any, schema: Schema) -> tuple[FieldSet | None, FieldSet | None]:
    if old is _NONE:
        return _member(field_set(new, schema, parents=True)), None
    if new is _NONE:
        return None, _member(field_set(old, schema, parents=True))
    if old == new:
        return None, None
    if isinstance(old, dict) and isinstance(new, dict) and not _atomic(new, schema):
        pairs = {f"f:{name}": (old.get(name, _NONE), new.get(name, _NONE), below(schema, name)) for name in {**old, **new}}
    elif isinstance(old, list) and isinstance(new, list) and not _atomic(new, schema):
        before = {element_key(item, schema): item for item in old}
        after = {element_key(item, schema): item for item in new}
        items = schema.get("items") or _OPEN
        pairs = {key: (before.get(key, _NONE), after.get(key, _NONE), items) for key in {**before, **after} if key is not None}
    else:
        return {}, None
    changed: FieldSet = {}
    removed: FieldSet = {}
    for key, (left, right, part) in pairs.items():
        more, less = _compare(left, right, part)
        if more is not None:
            changed[key] = more
        if less is not None:
            removed[key] = less
    return changed or None, removed or None


def _member(node: FieldSet) -> FieldSet:
    return {_SELF: {}, **node} if node else node


def _is_member(node: FieldSet) -> bool:
    return not node or _SELF in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    result = dict(one)
    for key, node in other.items():
        mine = result.get(key)
        if mine is None or key == _SELF:
            result[key] = node
        else:
            both = union(mine, node)
            if both and (_is_member(mine) or _is_member(node)):
                both[_SELF] = {}
            result[key] = both
    return result


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in the first and not in the second."""
    return _combine(one, other, keep=False)


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    return _combine(one, other, keep=True)


def _combine(one: FieldSet, other: FieldSet, *, keep: bool) -> FieldSet:
    result: FieldSet = {}
    for key, node in one.items():
        if key == _SELF:
            continue
        theirs = other.get(key)
        if theirs is None:
            if not keep:
                result[key] = node
            continue
        member = _is_member(node) and _is_member(theirs) is keep
        children = _combine(node, theirs, keep=keep)
        if children:
            result[key] = {_SELF: {}, **children} if member else children
        elif member:
            result[key] = {}
    return result


def members(fields: FieldSet, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all members."""
    for key, node in fields.items():
        if key != _SELF:
            if _is_member(node):
                yield (*path, key)
            yield from members(node, (*path, key))


def path_text(path: tuple[str, ...]) -> str:
    """A path for people: `.spec.subscribers[uid="b"].subscriberUri`."""
    text = ""
    for element in path:
        form, _, rest = element.partition(":")
        match form:
            case "f":
                text += f".{rest}"
            case "k":
                keys = msgspec.json.decode(rest)
                text += "[" + ",".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in keys.items()) + "]"
            case "v":
                text += f"[={rest}]"
            case _:
                text += f"[{rest}]"
    return text
