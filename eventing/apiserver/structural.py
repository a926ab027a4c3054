"""Whether the schema of a CustomResourceDefinition is structural, and what of it is not enforced here.

Kubernetes, "Specifying a structural schema"; the texts are those of apiextensions' validation.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventing.apiserver.failures import Cause

__all__ = ["structural_causes", "unenforced"]

_FORBIDDEN: Final = (
    "$ref",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "id",
    "patternProperties",
    "readOnly",
    "xml",
)
_TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean"})
_MAX_DEPTH: Final = 100
_JUNCTORS: Final = ("anyOf", "oneOf", "allOf", "not")


def structural_causes(schema: Any, path: str) -> list[Cause]:
    """Everything that makes a schema one that cannot be served; `path` is where it stands."""
    if not isinstance(schema, Mapping):
        return [Cause("FieldValueRequired", "Required value: schemas are required", path)]
    if schema.get("type") != "object":
        shown = schema.get("type", "")
        return [Cause("FieldValueInvalid", f'Invalid value: "{shown}": must be object at the root', f"{path}.type")]
    return list(_causes(schema, path, 0))


def _causes(schema: Mapping[str, Any], path: str, depth: int) -> Iterator[Cause]:
    if depth > _MAX_DEPTH:
        yield Cause("FieldValueInvalid", f"Invalid value: nested more than {_MAX_DEPTH} deep", path)
        return
    yield from _forbidden(schema, path)
    kind = schema.get("type")
    untyped = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not kind and not untyped:
        yield Cause("FieldValueRequired", "Required value: must not be empty for specified object fields", f"{path}.type")
    elif kind and kind not in _TYPES:
        shown = ", ".join(f'"{name}"' for name in sorted(_TYPES))
        yield Cause("FieldValueNotSupported", f'Unsupported value: "{kind}": supported values: {shown}', f"{path}.type")
    yield from _list_causes(schema, path)
    for name, part in _parts(schema):
        if isinstance(part, Mapping):
            yield from _causes(part, f"{path}.{name}", depth + 1)
        else:
            yield Cause("FieldValueInvalid", "Invalid value: must be a schema", f"{path}.{name}")


def _forbidden(schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    for name in _FORBIDDEN:
        if name in schema:
            yield Cause("FieldValueForbidden", f"Forbidden: {name} is not supported", f"{path}.{name}")
    if schema.get("uniqueItems"):
        text = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield Cause("FieldValueForbidden", text, f"{path}.uniqueItems")
    if schema.get("properties") and schema.get("additionalProperties"):
        text = "Forbidden: additionalProperties and properties are mutual exclusive"
        yield Cause("FieldValueForbidden", text, f"{path}.additionalProperties")
    pattern = schema.get("pattern")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError):
            yield Cause("FieldValueInvalid", f"Invalid value: {pattern!r}: is not a valid regular expression", f"{path}.pattern")


def _list_causes(schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if schema.get("type") == "array" and not isinstance(schema.get("items"), Mapping):
        yield Cause("FieldValueRequired", "Required value: must be specified", f"{path}.items")
    form = schema.get("x-kubernetes-list-type")
    if form not in {None, "atomic", "set", "map"}:
        text = f'Unsupported value: "{form}": supported values: "atomic", "map", "set"'
        yield Cause("FieldValueNotSupported", text, f"{path}.x-kubernetes-list-type")
    if form == "map":
        keys = schema.get("x-kubernetes-list-map-keys")
        properties = (schema.get("items") or {}).get("properties") or {}
        where = f"{path}.x-kubernetes-list-map-keys"
        if not keys or not isinstance(keys, list):
            yield Cause("FieldValueRequired", "Required value: must not be empty if x-kubernetes-list-type is map", where)
        else:
            for index, key in enumerate(keys):
                if key not in properties:
                    text = f'Invalid value: "{key}": entries must all be names of item properties'
                    yield Cause("FieldValueInvalid", text, f"{where}[{index}]")


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    properties = schema.get("properties") or {}
    if isinstance(properties, Mapping):
        for name, part in properties.items():
            yield f"properties[{name}]", part
    else:
        yield "properties", None
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        yield "additionalProperties", additional
    if "items" in schema:
        yield "items", schema["items"]


def unenforced(schema: Mapping[str, Any]) -> list[str]:
    """The rules of a structural schema that this server accepts and does not check."""
    found = {"x-kubernetes-validations"} if schema.get("x-kubernetes-validations") else set()
    for _, part in _parts(schema):
        if isinstance(part, Mapping):
            found.update(unenforced(part))
    return sorted(found)
