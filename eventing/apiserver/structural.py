"""Whether the schema of a CustomResourceDefinition is structural, and what of it is not enforced here.

Kubernetes, "Specifying a structural schema"; the texts are those of apiextensions' validation.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventing.apiserver.failures import Cause
from eventing.apiserver.schema import Findings, Node

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
_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
# What says how a value looks has no place below a junctor: it would hold for some values only.
_NOT_IN_JUNCTORS: Final = {
    "type": "empty",
    "additionalProperties": "undefined",
    "default": "undefined",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    _PRESERVE: "false",
    _EMBEDDED: "false",
    _INT_OR_STRING: "false",
    "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-list-type": "undefined",
    "x-kubernetes-map-type": "undefined",
    "x-kubernetes-validations": "empty",
}
_INT_OR_STRING_PATTERN: Final = [{"type": "integer"}, {"type": "string"}]


def structural_causes(schema: Any, path: str) -> list[Cause]:
    """Everything that makes a schema one that cannot be served; `path` is where it stands."""
    if not isinstance(schema, Mapping):
        return [Cause("FieldValueRequired", "Required value: schemas are required", path)]
    if schema.get("type") != "object":
        shown = schema.get("type", "")
        return [Cause("FieldValueInvalid", f'Invalid value: "{shown}": must be object at the root', f"{path}.type")]
    return [*_root_causes(schema, path), *_causes(schema, path, 0)]


def _root_causes(schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if schema.get("nullable"):
        yield Cause("FieldValueForbidden", "Forbidden: nullable cannot be true at the root", f"{path}.nullable")
    if schema.get("additionalProperties"):
        yield Cause("FieldValueForbidden", "Forbidden: must not be used at the root", f"{path}.additionalProperties")
    metadata = (schema.get("properties") or {}).get("metadata")
    if isinstance(metadata, Mapping):
        names = set(metadata.get("properties") or ())
        others = set(metadata) - {"type", "properties", "description", "default"}
        if others or names - {"name", "generateName"}:
            text = "Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield Cause("FieldValueForbidden", text, f"{path}.properties[metadata]")


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
    if not depth or schema.get(_EMBEDDED):
        yield from _resource_causes(schema, path)
    form = schema.get("x-kubernetes-map-type")
    if form not in {None, "atomic", "granular"}:
        text = f'Unsupported value: "{form}": supported values: "atomic", "granular"'
        yield Cause("FieldValueNotSupported", text, f"{path}.x-kubernetes-map-type")
    yield from _list_causes(schema, path)
    yield from _junctor_causes(schema, None if depth else schema, path, path, 0)
    yield from _default_causes(schema, path)
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
                elif "default" not in properties[key] and key not in (schema["items"].get("required") or ()):
                    text = (
                        "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                        "required property"
                    )
                    yield Cause("FieldValueRequired", text, f"{path}.items.properties[{key}].default")


def _resource_causes(schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    """Of the root and of embedded resources: what is a resource must look like one."""
    kind, properties = schema.get("type", ""), schema.get("properties") or {}
    if kind != "object" and schema.get(_EMBEDDED):
        text = f"must be object if {_EMBEDDED} is true"
        if kind:
            yield Cause("FieldValueInvalid", f'Invalid value: "{kind}": {text}', f"{path}.type")
        elif not schema.get(_PRESERVE):
            yield Cause("FieldValueRequired", f"Required value: {text}", f"{path}.type")
    if schema.get(_EMBEDDED) and not schema.get(_PRESERVE) and not properties:
        text = f"Required value: must not be empty if {_EMBEDDED} is true without {_PRESERVE}"
        yield Cause("FieldValueRequired", text, f"{path}.properties")
    for name, wanted in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        found = (properties.get(name) or {}).get("type", "") if name in properties else wanted
        if found != wanted:
            yield Cause("FieldValueInvalid", f'Invalid value: "{found}": must be {wanted}', f"{path}.properties[{name}].type")


def _junctor_causes(
    schema: Mapping[str, Any], structural: Mapping[str, Any] | None, path: str, where: str, depth: int
) -> Iterator[Cause]:
    """What stands below anyOf, oneOf, allOf and not only narrows what `structural` (at `where`) says of the same value.

    Where that is None, as it is everywhere but at the root, Kubernetes does not compare them.
    """
    if depth > _MAX_DEPTH:
        yield Cause("FieldValueInvalid", f"Invalid value: nested more than {_MAX_DEPTH} deep", path)
        return
    for junctor in _JUNCTORS:
        given = schema.get(junctor)
        if given is None or (junctor == "anyOf" and given == _INT_OR_STRING_PATTERN):
            continue
        parts = [("", given)] if junctor == "not" else [(f"[{i}]", part) for i, part in enumerate(given)]
        for index, part in parts:
            if isinstance(part, Mapping):
                yield from _narrowing_causes(part, structural, f"{path}.{junctor}{index}", where, depth + 1)


def _narrowing_causes(
    part: Mapping[str, Any], structural: Mapping[str, Any] | None, path: str, where: str, depth: int
) -> Iterator[Cause]:
    for name, wanted in _NOT_IN_JUNCTORS.items():
        if part.get(name):
            yield Cause("FieldValueForbidden", f"Forbidden: must be {wanted} to be structural", f"{path}.{name}")
    yield from _junctor_causes(part, structural, path, where, depth)
    for name, below in (part.get("properties") or {}).items():
        outside = (structural.get("properties") or {}).get(name) if structural is not None else None
        at = f"properties[{name}]"
        if outside is None and structural is not None:
            text = f"Required value: because it is defined in {path}.{at}"
            yield Cause("FieldValueRequired", text, f"{where}.{at}")
        elif isinstance(below, Mapping):
            yield from _narrowing_causes(below, outside, f"{path}.{at}", f"{where}.{at}", depth + 1)
    if isinstance(items := part.get("items"), Mapping):
        outside = structural.get("items") if structural is not None else None
        if outside is None and structural is not None:
            yield Cause("FieldValueRequired", f"Required value: because it is defined in {path}.items", f"{where}.items")
        else:
            yield from _narrowing_causes(items, outside, f"{path}.items", f"{where}.items", depth + 1)


def _default_causes(schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    """A default is a value like any other: nothing unknown in it, and nothing wrong."""
    if "default" not in schema or (schema["default"] is None and schema.get("nullable")):
        return
    findings = Findings()
    try:
        Node(schema).walk(copy.deepcopy(schema["default"]), "", findings)
    except (re.error, TypeError, ValueError):
        return  # the schema itself is wrong, and that is told
    for cause in findings.causes:
        yield Cause(cause.reason, cause.message, f"{path}.default")
    if findings.unknown:
        yield Cause("FieldValueInvalid", "Invalid value: must not have unknown fields", f"{path}.default")


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
