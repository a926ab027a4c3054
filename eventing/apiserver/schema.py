"""Structural schemas at work: one walk prunes what is unknown, fills in defaults and names what is wrong.

Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions": specifying a structural schema, pruning, defaulting.
The texts are those of kube-openapi's validation.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from eventing.apiserver.failures import Cause
from eventing.apiserver.values import Check, value_checks

__all__ = ["Findings", "Node"]

_ABSENT: Final = object()
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
MAX_DEPTH: Final = 200  # no kind comes near; Python's own limit stays out of reach


class Findings:
    """What a walk found: faults, and the paths of fields that no schema knows (pruned already).

    `whole` is False for a part of an object, as server-side apply sends it: nothing is filled in, nothing required.
    """

    __slots__ = ("causes", "unknown", "whole")

    def __init__(self, *, whole: bool = True) -> None:
        self.whole = whole
        self.causes: list[Cause] = []
        self.unknown: list[str] = []


class Node:
    """One compiled node of a schema. `typed` ones (of the core kinds, of metadata) take null for "not given", as Go does."""

    __slots__ = (
        "additional",
        "checks",
        "default",
        "embedded",
        "int_or_string",
        "items",
        "list_keys",
        "nullable",
        "preserve",
        "properties",
        "required",
        "type",
        "typed",
        "types",
        "with_defaults",
    )

    def __init__(self, schema: Mapping[str, Any], *, typed: bool = False) -> None:
        self.typed = typed
        self.type = schema.get("type", "")
        self.int_or_string = bool(schema.get("x-kubernetes-int-or-string"))
        self.types = (int, str) if self.int_or_string else _TYPES.get(self.type, (object,))
        self.nullable = bool(schema.get("nullable"))
        self.preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded = bool(schema.get("x-kubernetes-embedded-resource"))
        self.required: tuple[str, ...] = tuple(schema.get("required") or ())
        self.default = schema.get("default", _ABSENT)
        self.properties = {name: Node(part, typed=typed) for name, part in (schema.get("properties") or {}).items()}
        additional = schema.get("additionalProperties")
        self.additional = Node(additional, typed=typed) if isinstance(additional, Mapping) else None
        self.preserve = self.preserve or additional is True
        items = schema.get("items")
        self.items = Node(items, typed=typed) if isinstance(items, Mapping) else None
        self.with_defaults = [(name, node) for name, node in self.properties.items() if node.default is not _ABSENT]
        self.checks: tuple[Check, ...] = value_checks(schema)
        self.list_keys = _list_identity(schema)

    def walk(self, value: Any, path: str, findings: Findings, depth: int = 0) -> None:
        """Prune, default and check `value` in place. `path` is that of `value` ("" for the root)."""
        if not self._fits(value):
            findings.causes.append(self.wrong_type(value, path))
            return
        if depth > MAX_DEPTH:
            findings.causes.append(_too_deep(path))
            return
        if isinstance(value, dict):
            if self.type == "object" or self.properties:
                self._walk_object(value, path, findings, depth + 1)
            elif not _shallow(value, MAX_DEPTH - depth):
                findings.causes.append(_too_deep(path))
        elif isinstance(value, list) and self.items is not None:
            for index, item in enumerate(value):
                below = f"{path}[{index}]"
                if item is None and not self.items.nullable:
                    findings.causes.append(self.items.wrong_type(item, below))
                elif item is not None:
                    self.items.walk(item, below, findings, depth + 1)
            if self.list_keys is not None:
                _check_duplicates(value, self.list_keys, path, findings)
        for check in self.checks:
            if (cause := check(value, path)) is not None:
                findings.causes.append(cause)

    def _fits(self, value: Any) -> bool:
        if isinstance(value, self.types):
            return not isinstance(value, bool) or self.types[0] not in {int, float}
        return self.type == "integer" and isinstance(value, float) and value.is_integer()

    def _walk_object(self, value: dict[str, Any], path: str, findings: Findings, depth: int) -> None:
        prefix = f"{path}." if path else ""
        properties = self.properties
        for name in list(value):
            item = value[name]
            node = properties.get(name) or self.additional
            if node is None:
                if self.preserve and not _shallow(item, MAX_DEPTH - depth):
                    findings.causes.append(_too_deep(f"{prefix}{name}"))
                if not self.preserve and not (self.embedded and name in {"apiVersion", "kind", "metadata"}):
                    del value[name]
                    findings.unknown.append(f"{prefix}{name}")
            elif item is None and not node.nullable:
                if node.typed or node.default is not _ABSENT:
                    del value[name]
                else:
                    findings.causes.append(node.wrong_type(item, f"{prefix}{name}"))
            elif item is not None:
                node.walk(item, f"{prefix}{name}", findings, depth)
        if not findings.whole:
            return
        for name, node in self.with_defaults:
            if name not in value:
                value[name] = copy.deepcopy(node.default)
                node.walk(value[name], f"{prefix}{name}", findings, depth)
        for name in self.required:
            if name not in value:
                findings.causes.append(Cause("FieldValueRequired", "Required value", f"{prefix}{name}"))

    def wrong_type(self, value: Any, path: str) -> Cause:
        if self.typed:
            word = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}.get(type(value), "object")
            wanted = {"boolean": "bool", "integer": "int32", "array": "[]", "object": "map"}.get(self.type, self.type)
            text = f"json: cannot unmarshal {word} into Go struct field {path} of type {wanted}"
            return Cause("FieldValueTypeInvalid", text, path)
        wanted = "integer,string" if self.int_or_string else self.type
        shown = f'"{value}"' if isinstance(value, str) else f'"{type_name(value)}"'
        text = f"Invalid value: {shown}: {path} in body must be of type {wanted}: {shown}"
        return Cause("FieldValueTypeInvalid", text, path)


def _too_deep(path: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: nested more than {MAX_DEPTH} deep", path)


def _shallow(value: Any, depth: int) -> bool:
    """Whether a part that no schema describes ends within `depth` levels."""
    if isinstance(value, dict):
        return depth > 0 and all(_shallow(item, depth - 1) for item in value.values())
    return not isinstance(value, list) or (depth > 0 and all(_shallow(item, depth - 1) for item in value))


def type_name(value: Any) -> str:
    """How Kubernetes names the type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number" if math.isfinite(value) else "null"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _list_identity(schema: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return lambda item: msgspec.json.encode(item, order="sorted")
        case "map":
            keys: list[str] = list(schema.get("x-kubernetes-list-map-keys") or ())
            defaults = (schema.get("items") or {}).get("properties") or {}

            def identity(item: Any) -> Any:
                if not isinstance(item, dict):
                    return None
                return msgspec.json.encode([item.get(key, (defaults.get(key) or {}).get("default")) for key in keys])

            return identity
    return None


def _check_duplicates(items: list[Any], identity: Callable[[Any], Any], path: str, findings: Findings) -> None:
    seen = set()
    for index, item in enumerate(items):
        key = identity(item)
        if key is not None and key in seen:
            shown = msgspec.json.encode(item).decode()
            findings.causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {shown}", f"{path}[{index}]"))
        seen.add(key)
