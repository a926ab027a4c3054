"""The kinds of Kubernetes' core group that the mesh's own need: typed where anyone here looks, open
elsewhere.
"""

import base64
import binascii
from typing import Any, Final

from eventing.errors import Fault, InvalidObjectError
from eventing.resources.kinds import Admission, Column, Kind, Object

__all__ = [
    "CONFIG_MAP",
    "CORE_KINDS",
    "EVENT",
    "NAMESPACE",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
]

_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_STRING: Final = {"type": "string"}
_BOOLEAN: Final = {"type": "boolean"}
_INTEGER: Final = {"type": "integer", "format": "int32"}
_STRINGS: Final = {"type": "array", "items": _STRING}
_STRING_MAP: Final = {"type": "object", "additionalProperties": _STRING}
_BYTES_MAP: Final = {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_OPEN_LIST: Final = {"type": "array", "items": _OPEN}

# In every core kind: list path -> key by which a strategic merge patch tells its elements ("": plain values).
_METADATA_MERGE_KEYS: Final = {"metadata.ownerReferences": "uid", "metadata.finalizers": ""}


def _object(description: str, *, open_: bool = False, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "description": description, "properties": properties}
    return schema | ({"x-kubernetes-preserve-unknown-fields": True} if open_ else {})


def _text(description: str) -> dict[str, Any]:
    return {**_STRING, "description": description}


def _default_namespace(obj: Object, _admission: Admission) -> None:
    obj["spec"] = obj.get("spec") or {}
    obj["spec"].setdefault("finalizers", ["kubernetes"])
    obj["status"] = obj.get("status") or {}
    obj["status"].setdefault("phase", "Active")
    labels = obj["metadata"].get("labels") or {}
    obj["metadata"]["labels"] = labels
    if name := obj["metadata"].get("name"):
        labels["kubernetes.io/metadata.name"] = name


def _default_secret(obj: Object, _admission: Admission) -> None:
    """`stringData` is for writing only: its values move, encoded, into `data`."""
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj["data"] = obj.get("data") or {}
        data.update({key: base64.b64encode(text.encode()).decode() for key, text in plain.items()})


def _validate_secret(obj: Object, old: Object | None, admission: Admission) -> None:
    faults = []
    for key, text in (obj.get("data") or {}).items():
        try:
            base64.b64decode(text or "", validate=True)
        except (binascii.Error, ValueError):
            faults.append(Fault(f"data[{key}]", "Invalid value: the value is not base64 (or put it into stringData)"))
    if old is not None and obj.get("type") != old.get("type"):
        faults.append(Fault("type", f"Invalid value: {obj.get('type')!r}: field is immutable"))
    _raise(faults)
    _validate_immutable(obj, old, admission)


def _validate_immutable(obj: Object, old: Object | None, _admission: Admission) -> None:
    """ConfigMap and Secret: what was marked immutable stays so, and as it was."""
    if old is None or not old.get("immutable"):
        return
    message = "Forbidden: field is immutable when `immutable` is set"
    fields = [field for field in ("data", "binaryData") if (obj.get(field) or {}) != (old.get(field) or {})]
    if not obj.get("immutable"):
        fields.insert(0, "immutable")
    _raise([Fault(field, message) for field in fields])


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise InvalidObjectError("; ".join(map(str, faults)), faults)


def _default_service(obj: Object, _admission: Admission) -> None:
    spec = obj["spec"] = obj.get("spec") or {}
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        if "port" in port:
            port.setdefault("targetPort", port["port"])


def _validate_event(obj: Object, old: Object | None, _admission: Admission) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace") or "default"
    namespace = obj["metadata"].get("namespace", "")
    if old is None and involved != namespace:
        _raise([Fault("involvedObject.namespace", f"Invalid value: {involved!r}: does not match event.namespace")])


NAMESPACE: Final = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    short_names=("ns",),
    namespaced=False,
    schema=_object(
        "A Namespace is a scope for names: objects of two namespaces may have the same name.",
        spec=_object("What is wanted of the namespace.", finalizers=_STRINGS),
        status=_object("What has become of it.", open_=True, phase=_text("Active or Terminating."), conditions=_OPEN_LIST),
    ),
    columns=(Column("Status", ".status.phase"), _AGE),
    strategic_merge_keys={**_METADATA_MERGE_KEYS, "status.conditions": "type"},
    default=_default_namespace,
)

SECRET: Final = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    status=False,
    schema=_object(
        "A Secret holds values that are nobody else's business.",
        type=_text("What the values are for, for programs; Opaque where it says nothing."),
        data={**_BYTES_MAP, "description": "The values, in base64."},
        stringData={
            **_STRING_MAP,
            "description": "For writing only: values as plain text, which move into data.",
        },
        immutable={**_BOOLEAN, "description": "Whether the values can never be changed."},
    ),
    columns=(Column("Type", ".type"), Column("Data", ".data", "integer"), _AGE),
    strategic_merge_keys=_METADATA_MERGE_KEYS,
    default=_default_secret,
    validate=_validate_secret,
)

CONFIG_MAP: Final = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    short_names=("cm",),
    status=False,
    schema=_object(
        "A ConfigMap holds configuration.",
        data={**_STRING_MAP, "description": "The values, as text."},
        binaryData={**_BYTES_MAP, "description": "The values that are not text, in base64."},
        immutable={**_BOOLEAN, "description": "Whether the values can never be changed."},
    ),
    columns=(Column("Data", ".data", "integer"), _AGE),
    strategic_merge_keys=_METADATA_MERGE_KEYS,
    validate=_validate_immutable,
)

_REFERENCE = _object(
    "An object.",
    apiVersion=_STRING,
    kind=_STRING,
    namespace=_STRING,
    name=_STRING,
    uid=_STRING,
    resourceVersion=_STRING,
    fieldPath=_STRING,
)

EVENT: Final = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    short_names=("ev",),
    status=False,
    schema=_object(
        "An Event of Kubernetes (not a CloudEvent): what a controller did, or could not do, to an object.",
        involvedObject={**_REFERENCE, "description": "What it is about."},
        related={**_REFERENCE, "description": "What else it concerns."},
        reason=_text("Why, in one word for programs."),
        message=_text("Why, for people."),
        type=_text("Normal or Warning."),
        count={**_INTEGER, "description": "How many times it happened."},
        firstTimestamp={**_STRING, "format": "date-time", "description": "When it happened first."},
        lastTimestamp={**_STRING, "format": "date-time", "description": "When it happened last."},
        eventTime={**_STRING, "format": "date-time", "description": "When it happened, exactly."},
        action=_text("What was done."),
        source=_object("Who says so.", component=_STRING, host=_STRING),
        reportingComponent=_text("Name of the controller that says so."),
        reportingInstance=_text("Its instance."),
        series={**_OPEN, "description": "The series it belongs to."},
    ),
    strategic_merge_keys=_METADATA_MERGE_KEYS,
    validate=_validate_event,
)

SERVICE: Final = Kind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    short_names=("svc",),
    schema=_object(
        "A Service is a name in the cluster's DNS: NAME.NAMESPACE.svc.cluster.local.",
        spec=_object(
            "What is wanted of the Service.",
            open_=True,
            type=_text("ClusterIP, NodePort, LoadBalancer or ExternalName."),
            clusterIP=_STRING,
            clusterIPs=_STRINGS,
            externalIPs=_STRINGS,
            externalName=_STRING,
            selector=_STRING_MAP,
            sessionAffinity=_STRING,
            ports={
                "type": "array",
                # Stricter than the merge key of strategic patches, as in Kubernetes: 53/TCP and 53/UDP are two.
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": _object(
                    "A port.",
                    name=_STRING,
                    protocol={**_STRING, "default": "TCP"},
                    appProtocol=_STRING,
                    port=_INTEGER,
                    targetPort={"x-kubernetes-int-or-string": True},
                    nodePort=_INTEGER,
                ),
            },
        ),
        status={**_OPEN, "description": "What has become of it."},
    ),
    strategic_merge_keys={**_METADATA_MERGE_KEYS, "spec.ports": "port", "status.conditions": "type"},
    default=_default_service,
)

SERVICE_ACCOUNT: Final = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    short_names=("sa",),
    status=False,
    schema=_object(
        "A ServiceAccount is an identity for programs.",
        secrets=_OPEN_LIST,
        imagePullSecrets=_OPEN_LIST,
        automountServiceAccountToken=_BOOLEAN,
    ),
    columns=(Column("Secrets", ".secrets", "integer"), _AGE),
    strategic_merge_keys={**_METADATA_MERGE_KEYS, "secrets": "name"},
)

CORE_KINDS: Final = (NAMESPACE, SECRET, CONFIG_MAP, EVENT, SERVICE, SERVICE_ACCOUNT)
