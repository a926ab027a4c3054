"""CustomResourceDefinition as a kind, and the kinds that it defines (apiextensions.k8s.io/v1)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventing.apiserver.definition_faults import validate_definition
from eventing.apiserver.registry import Resource
from eventing.apiserver.structural import unenforced
from eventing.resources.kinds import Admission, Column, Kind, Object

__all__ = ["CLEANUP", "CUSTOM_RESOURCE_DEFINITION", "defined_resource", "limits"]

CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"

_STRING: Final = {"type": "string"}
_STRINGS: Final = {"type": "array", "items": _STRING}
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _object(about: str, required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "description": about, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _list_of(item: dict[str, Any], key: str) -> dict[str, Any]:
    return {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


_NAMES: Final = _object(
    "The names of the kind.",
    ("plural", "kind"),
    plural=_STRING,
    singular=_STRING,
    kind=_STRING,
    listKind=_STRING,
    shortNames=_STRINGS,
    categories=_STRINGS,
)
_COLUMN: Final = _object(
    "A column of kubectl's table.",
    ("name", "type", "jsonPath"),
    name=_STRING,
    type={**_STRING, "enum": ["integer", "number", "string", "boolean", "date"]},
    format=_STRING,
    description=_STRING,
    priority={"type": "integer"},
    jsonPath=_STRING,
)
_VERSION: Final = _object(
    "A version of the kind.",
    ("name", "served", "storage"),
    name=_STRING,
    served={"type": "boolean"},
    storage={"type": "boolean"},
    deprecated={"type": "boolean"},
    deprecationWarning=_STRING,
    schema=_object("How its objects look.", openAPIV3Schema=_OPEN),
    subresources=_object("What is written apart.", status=_OPEN, scale=_OPEN),
    additionalPrinterColumns={"type": "array", "items": _COLUMN},
    selectableFields={"type": "array", "items": _object("A field to select by.", ("jsonPath",), jsonPath=_STRING)},
)


def _default(obj: Object, admission: Admission) -> None:
    spec = obj["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    if admission.operation == "CREATE":
        finalizers = obj["metadata"].setdefault("finalizers", [])
        if CLEANUP not in finalizers:
            finalizers.append(CLEANUP)


CUSTOM_RESOURCE_DEFINITION: Final = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    namespaced=False,
    schema={
        **_object(
            "A CustomResourceDefinition adds a kind of object to the API.",
            ("spec",),
            spec=_object(
                "The kind.",
                ("group", "names", "scope", "versions"),
                group=_STRING,
                names=_NAMES,
                scope={**_STRING, "enum": ["Cluster", "Namespaced"]},
                versions=_list_of(_VERSION, "name"),
                conversion=_OPEN,
                preserveUnknownFields={"type": "boolean", "enum": [False]},
            ),
            status=_object(
                "What has become of it.",
                acceptedNames={**_NAMES, "required": []},
                conditions=_list_of(_OPEN | {"properties": {"type": _STRING}}, "type"),
                storedVersions=_STRINGS,
            ),
        )
    },
    columns=(Column("Created At", ".metadata.creationTimestamp"),),
    default=_default,
    validate=validate_definition,
)


def served_version(definition: Object) -> Object | None:
    """The one version that is served: the one that is stored, else the first that may be."""
    served = [version for version in definition["spec"]["versions"] if version["served"]]
    return next((version for version in served if version["storage"]), served[0] if served else None)


def defined_resource(definition: Object) -> Resource | None:
    """The resource that an admitted definition asks for; None where none of its versions is served."""
    version = served_version(definition)
    if version is None:
        return None
    spec = definition["spec"]
    names = spec["names"]
    kind = Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        schema=version["schema"]["openAPIV3Schema"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        namespaced=spec["scope"] == "Namespaced",
        status="status" in (version.get("subresources") or {}),
        columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()),
        labels=definition["metadata"].get("labels") or {},
    )
    fields = [field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()]
    return Resource(kind, singular=names["singular"], list_kind=names["listKind"], custom=True, field_labels=fields)


def _column(column: Mapping[str, Any]) -> Column:
    return Column(column["name"], column["jsonPath"], column["type"], column.get("priority", 0), column.get("description", ""))


def limits(definition: Object) -> str:
    """What of a definition this server does not do, in a sentence for its conditions; "" where it does all."""
    texts = []
    served = [version["name"] for version in definition["spec"]["versions"] if version["served"]]
    chosen = served_version(definition)
    if chosen is not None and len(served) > 1:
        texts.append(f"of its versions only {chosen['name']} is served")
    if chosen is not None and (rules := unenforced(chosen["schema"]["openAPIV3Schema"])):
        texts.append(f"{', '.join(rules)} are not evaluated")
    if chosen is not None and "scale" in (chosen.get("subresources") or {}):
        texts.append("the scale subresource is not served")
    return "; ".join(texts)
