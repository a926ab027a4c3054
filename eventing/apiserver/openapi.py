"""OpenAPI v3, per group and version, from the schemas of the kinds: for validation, `kubectl explain` and editors.

The strategic merge type is left out on purpose: kubectl then computes such patches from its own types, which know all keys.
"""

import hashlib
from typing import Any, Final

import msgspec

from eventing.apiserver.failures import path_not_found
from eventing.apiserver.metadata import METADATA_SCHEMA
from eventing.apiserver.registry import Registry, Resource
from eventing.apiserver.requests import APPLY_PATCH, JSON_PATCH, MERGE_PATCH

__all__ = ["OpenApi"]

_METADATA_NAME: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_METADATA_NAME: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_LIST_METADATA: Final = {
    "type": "object",
    "description": "Metadata of a list.",
    "properties": {
        "continue": {"type": "string"},
        "remainingItemCount": {"type": "integer", "format": "int64"},
        "resourceVersion": {"type": "string"},
    },
}


class OpenApi:
    """The documents, made from the registry and kept until it changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._documents: dict[str, bytes] = {}

    def index(self) -> bytes:
        """`/openapi/v3`. The hash in each URL changes with the document, so that clients may keep it for good."""
        paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self.hash(path)}"} for path in self._current()}
        return msgspec.json.encode({"paths": paths})

    def document(self, path: str) -> bytes:
        """`/openapi/v3/apis/GROUP/VERSION` or `/openapi/v3/api/v1`, without the first two segments. Raises 404."""
        documents = self._current()
        if path not in documents:
            raise path_not_found()
        return documents[path]

    def hash(self, path: str) -> str:
        return hashlib.sha256(self.document(path)).hexdigest().upper()[:64]

    def _current(self) -> dict[str, bytes]:
        if self._generation != self._registry.generation:
            self._documents = {
                _path(group, version): msgspec.json.encode(_document(resources))
                for group, versions in self._registry.groups().items()
                for version, resources in versions.items()
            }
            self._generation = self._registry.generation
        return self._documents


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(resources: list[Resource]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {_METADATA_NAME: METADATA_SCHEMA, _LIST_METADATA_NAME: _LIST_METADATA}
    for resource in resources:
        paths |= _paths(resource)
        schemas |= _schemas(resource)
    return {
        "openapi": "3.0.0",
        "info": {"title": "eventing-mesh", "version": resources[0].kind.version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _gvk(resource: Resource, suffix: str = "") -> dict[str, str]:
    kind = resource.kind
    return {"group": kind.group, "version": kind.version, "kind": kind.kind + suffix}


def _schema_name(resource: Resource) -> str:
    kind = resource.kind
    group = ".".join(reversed(kind.group.split("."))) if kind.group else "io.k8s.api.core"
    return f"{group}.{kind.version}.{kind.kind}"


def _paths(resource: Resource) -> dict[str, Any]:
    kind = resource.kind
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    collection = f"{kind.path}{scope}/{kind.plural}"
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}
    options = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]

    def operation(action: str, bodies: list[str], **more: Any) -> dict[str, Any]:
        made = {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(resource),
            "parameters": options if bodies else [],
            "responses": answer,
        }
        if bodies:
            made["requestBody"] = {"content": {body: {"schema": reference} for body in bodies}}
        return made | more

    def item() -> dict[str, Any]:
        return {
            "get": operation("get", []),
            "put": operation("put", ["application/json"]),
            "delete": operation("delete", []),
            "patch": operation("patch", [APPLY_PATCH, JSON_PATCH, MERGE_PATCH]),
        }

    paths = {
        collection: {"get": operation("list", []), "post": operation("post", ["application/json"])},
        f"{collection}/{{name}}": item(),
    }
    if kind.status:
        status = item()
        del status["delete"]
        paths[f"{collection}/{{name}}/status"] = status
    return paths


def _schemas(resource: Resource) -> dict[str, Any]:
    name = _schema_name(resource)
    properties = dict(resource.schema["properties"])
    metadata = {"$ref": f"#/components/schemas/{_METADATA_NAME}"}
    properties["metadata"] = {
        "description": METADATA_SCHEMA["description"],
        "allOf": [metadata],
        "default": {},
    }
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    listing = {
        "type": "object",
        "description": f"A list of {resource.kind.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"#/components/schemas/{_LIST_METADATA_NAME}"},
            "items": items,
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, "List")],
    }
    return {
        name: {**resource.schema, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(resource)]},
        f"{name}List": listing,
    }
