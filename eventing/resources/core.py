"""The kinds of Kubernetes' core group that the mesh's own need: typed where anyone here looks, open
elsewhere.
"""

from typing import Any, Final

from eventing.resources.core_rules import (
    default_namespace,
    default_secret,
    default_service,
    validate_config_map,
    validate_event,
    validate_secret,
    validate_service,
)
from eventing.resources.kinds import Column, Kind

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
    default=default_namespace,
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
    default=default_secret,
    validate=validate_secret,
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
    validate=validate_config_map,
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
    validate=validate_event,
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
    default=default_service,
    validate=validate_service,
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
