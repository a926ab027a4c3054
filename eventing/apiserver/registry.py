"""Which resources are served: the kinds given at start, and those of the CustomResourceDefinitions that users apply."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from eventing.apiserver.columns import columns_of
from eventing.apiserver.metadata import METADATA_SCHEMA
from eventing.apiserver.schema import Node
from eventing.resources.kinds import Kind

__all__ = ["CUSTOM_VERBS", "Registry", "Resource"]

CUSTOM_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

_FIELD_LABELS: Final = ("metadata.name", "metadata.namespace")
# Fields beside the name by which the core kinds can be selected (Kubernetes' "selectable fields").
_MORE_FIELD_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "events": (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
}


class Resource:
    """A kind as it is served: schema compiled, columns compiled, names decided."""

    def __init__(
        self,
        kind: Kind,
        *,
        singular: str = "",
        list_kind: str = "",
        custom: bool = False,
        field_labels: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.custom = custom  # comes from a CustomResourceDefinition that a user applied
        self.singular = singular or kind.singular
        self.list_kind = list_kind or f"{kind.kind}List"
        self.key = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        self.typed = not kind.group  # decoded by Go into a struct: other errors, nulls are "not given"
        self.schema = _whole_schema(kind)
        properties = {**self.schema["properties"], "metadata": {"x-kubernetes-preserve-unknown-fields": True}}
        self.node = Node({**self.schema, "properties": properties}, typed=self.typed)  # metadata has a walk of its own
        self.columns = columns_of(kind)
        more = _MORE_FIELD_LABELS.get(kind.plural, ()) if not kind.group else ()
        self.field_labels = frozenset((*_FIELD_LABELS, *more, *field_labels))
        self.generations = bool(kind.group)  # the core kinds served here count none

    def subresource(self, name: str) -> bool:
        """Whether the kind has the subresource."""
        return name == "status" and self.kind.status

    def __repr__(self) -> str:
        return f"<Resource {self.key} {self.kind.version}>"


def _whole_schema(kind: Kind) -> dict[str, Any]:
    """The schema of the whole object; the lists of core kinds get their merge keys as CRDs write them."""
    schema = dict(kind.schema)
    properties = dict(schema.get("properties") or {})
    properties["apiVersion"] = {
        "type": "string",
        "description": "Version of the schema of this object, with its group.",
    }
    properties["kind"] = {"type": "string", "description": "Name of the kind of this object."}
    properties["metadata"] = METADATA_SCHEMA
    schema = {**schema, "type": "object", "properties": properties}
    for path, key in kind.strategic_merge_keys.items():
        if not path.startswith("metadata."):
            schema = _with_list_type(schema, path.split("."), key)
    return schema


def _with_list_type(schema: Mapping[str, Any], path: Sequence[str], key: str) -> dict[str, Any]:
    if not path:
        if "x-kubernetes-list-type" in schema:
            return dict(schema)
        if not key:
            return {**schema, "x-kubernetes-list-type": "set"}
        return {**schema, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    properties = dict(schema.get("properties") or {})
    if path[0] in properties:
        properties[path[0]] = _with_list_type(properties[path[0]], path[1:], key)
    return {**schema, "properties": properties}


@dataclass(slots=True)
class Registry:
    """The served resources by path. `generation` grows with every change, for those who cache what they made of it."""

    generation: int = 0
    _resources: dict[tuple[str, str, str], Resource] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        kind = resource.kind
        self._resources[kind.group, kind.version, kind.plural] = resource
        self.generation += 1

    def remove(self, resource: Resource) -> None:
        kind = resource.kind
        if self._resources.pop((kind.group, kind.version, kind.plural), None) is not None:
            self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._resources.get((group, version, plural))

    def by_key(self, key: str) -> Resource | None:
        return next((resource for resource in self if resource.key == key), None)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource that references name by apiVersion (any version of its group) and kind."""
        group = api_version.rpartition("/")[0]
        return next((found for found in self if found.kind.group == group and found.kind.kind == kind), None)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._resources.values()))

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """Group → version → resources, in order of registration; the core group first."""
        groups: dict[str, dict[str, list[Resource]]] = {"": {}}
        for resource in self:
            groups.setdefault(resource.kind.group, {}).setdefault(resource.kind.version, []).append(resource)
        return groups


def digest(documents: Iterable[Any]) -> str:
    """A short hash of JSON documents, for URLs and ETags."""
    return hashlib.sha256(b"".join(map(msgspec.json.encode, documents))).hexdigest()[:32]
