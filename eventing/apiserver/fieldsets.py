r"""Sets of fields in the form of FieldsV1: `{"f:spec": {"f:replicas": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}`.

A node is a member of the set if it is empty or holds ".". Kubernetes, "Server-Side Apply"; the rules are those of
structured-merge-diff. Schemas decide what is one value: lists without `x-kubernetes-list-type: map|set` and objects with
`x-kubernetes-map-type: atomic`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

__all__ = [
    "Emptied",
    "FieldSet",
    "Schema",
    "below",
    "compare",
    "difference",
    "element_key",
    "field_set",
    "intersection",
    "is_member",
    "list_form",
    "members",
    "named",
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


def _form(value: Any, schema: Schema) -> str:
    """map, list (both with parts that have owners) or leaf."""
    if isinstance(value, dict):
        return "leaf" if schema.get("x-kubernetes-map-type") == "atomic" else "map"
    return "list" if isinstance(value, list) and list_form(schema) != "atomic" else "leaf"


def _parts(value: Any, schema: Schema) -> Iterator[tuple[str, Any, Schema]]:
    """The parts of a map or list, each with its path element and schema."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"f:{name}", item, below(schema, name)
    else:
        items = schema.get("items") or _OPEN
        for item in value:
            if (key := element_key(item, schema)) is not None:
                yield key, item, items


def field_set(value: Any, schema: Schema) -> FieldSet:
    """The fields that a configuration sets: its leaves, all elements of lists, all entries of maps that no schema declares.

    A list that merges sets nothing where it is empty.
    """
    return _set_by(value, schema) or {}


def _set_by(value: Any, schema: Schema) -> FieldSet | None:
    """The node of a value; None where it sets nothing."""
    form = _form(value, schema)
    if form == "leaf" or value == {}:
        return {}
    result: FieldSet = {}
    declared = (schema.get("properties") or {}) if form == "map" else None
    for key, item, part in _parts(value, schema):
        node = _set_by(item, part)
        if declared is None or key[2:] not in declared:
            result[key] = _member(node or {})
        elif node is not None:
            result[key] = node
    return result or None


def _all_of(value: Any, schema: Schema) -> FieldSet:
    """The node of a value that is new, or gone: everything in it is a member."""
    if _form(value, schema) == "leaf":
        return {}
    return _member({key: _all_of(item, part) for key, item, part in _parts(value, schema)})


_NONE: Final = object()


class Emptied:
    """In place of a map or list out of which everything was taken. To a comparison it is the empty one, as null is."""

    __slots__ = ("was",)

    def __init__(self, was: type[dict[str, Any]] | type[list[Any]]) -> None:
        self.was = was


def compare(old: Any, new: Any, schema: Schema) -> tuple[FieldSet, FieldSet]:
    """(what was added or changed, what was removed) between two versions of an object."""
    changed, removed = _compare(old, new, schema)
    return changed or {}, removed or {}


def _compare(old: Any, new: Any, schema: Schema) -> tuple[FieldSet | None, FieldSet | None]:
    if old is _NONE:
        return _all_of(new, schema), None
    if new is _NONE:
        return None, _all_of(old, schema)
    if old == new:
        return None, None
    old, new = _or_empty(old, new), _or_empty(new, old)
    if not old and old == new:
        return {}, None  # null, and what is empty
    before, after = _form(old, schema), _form(new, schema)
    if before != after:  # in parts that no schema describes
        added, gone = _all_of(new, schema), _all_of(old, schema)
        gone.pop(_SELF, None)
        return _member(added), gone or None
    if before == "leaf":
        return {}, None
    left = {key: (item, part) for key, item, part in _parts(old, schema)}
    right = {key: (item, part) for key, item, part in _parts(new, schema)}
    changed: FieldSet = {}
    removed: FieldSet = {}
    for key in {**left, **right}:
        item, part = left.get(key) or (_NONE, right[key][1])
        more, less = _compare(item, right[key][0] if key in right else _NONE, part)
        if more is not None:
            changed[key] = more
        if less is not None:
            removed[key] = less
    return changed or None, removed or None


def _or_empty(value: Any, other: Any) -> Any:
    if value is None or isinstance(value, Emptied):
        return {} if isinstance(other, dict) else [] if isinstance(other, list) else None
    return value


def named(fields: FieldSet, schema: Schema) -> FieldSet:
    """The set with the declared fields on the way to its members, which then go and stay as a whole."""
    result: FieldSet = {}
    declared = schema.get("properties") or {}
    for key, node in fields.items():
        if key == _SELF:
            result[key] = node
        elif key.startswith("f:"):
            inner = named(node, below(schema, key[2:]))
            result[key] = _member(inner) if key[2:] in declared else inner
        else:
            result[key] = named(node, schema.get("items") or _OPEN)
    return result


def _member(node: FieldSet) -> FieldSet:
    return {_SELF: {}, **node} if node else node


def is_member(node: FieldSet) -> bool:
    """Whether the field itself is in the set, not only parts of it."""
    return not node or _SELF in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    result = dict(one)
    for key, node in other.items():
        mine = result.get(key)
        if mine is None or key == _SELF:
            result[key] = node
        else:
            both = union(mine, node)
            if both and (is_member(mine) or is_member(node)):
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
        member = is_member(node) and is_member(theirs) is keep
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
            if is_member(node):
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
