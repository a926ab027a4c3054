"""From a pydantic model to a structural schema, the OpenAPI v3 of a CustomResourceDefinition.

Structural means: a type on every node, no $ref, no anyOf, no title, no nullable unions; free-form objects are
marked with `x-kubernetes-preserve-unknown-fields`. Only shape goes in here: rules on values are in each
kind's `validate`, in Knative's words, which a schema could not speak.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Int32", "Int64", "IntOrString", "Model", "object_schema", "structural_schema"]

Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
IntOrString = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]

_KEPT = (
    "description",
    "format",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-map-type",
)


class Model(BaseModel):
    """Base of everything that users write. Fields are optional: `validate` says what is missing."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of one model, references inlined."""
    document = model.model_json_schema(by_alias=True)
    return _structural(document, document.get("$defs", {}))


def object_schema(description: str, **parts: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """The schema of an object without apiVersion, kind and metadata: `object_schema(…, spec=…, status=…)`."""
    properties = {name: part if isinstance(part, dict) else structural_schema(part) for name, part in parts.items()}
    return {"type": "object", "description": description, "properties": properties}


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    kept = {key: node[key] for key in _KEPT if key in node}
    if kept.get("x-kubernetes-int-or-string"):
        return kept
    if "$ref" in node:
        return _structural(definitions[node["$ref"].rpartition("/")[2]], definitions) | kept
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise TypeError(f"a structural schema has no unions: {node}")
        return _structural(options[0], definitions) | kept
    match node.get("type"):
        case "object":
            return kept | _object(node, definitions)
        case "array":
            return kept | {"type": "array", "items": _structural(node["items"], definitions)}
        case "string" | "integer" | "number" | "boolean" as scalar:
            return kept | {"type": scalar}
        case other:
            raise TypeError(f"a structural schema has no type {other}: {node}")


def _object(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if properties := node.get("properties"):
        schema["properties"] = {name: _structural(part, definitions) for name, part in properties.items()}
        if required := node.get("required"):
            schema["required"] = sorted(required)
    else:
        values = node.get("additionalProperties")
        if isinstance(values, dict) and values:
            schema["additionalProperties"] = _structural(values, definitions)
        else:
            schema["x-kubernetes-preserve-unknown-fields"] = True
    return schema
