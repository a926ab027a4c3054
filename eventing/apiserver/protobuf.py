r"""Reading the protobuf bodies that typed clients send since kubectl 1.32. Answers are never in protobuf.

The envelope is `k8s\0` and a runtime.Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: raw}; the messages are those of
k8s.io/api. Only the kinds that such clients create are known.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from eventing.apiserver.failures import bad_request, unsupported_media_type
from eventing.resources.kinds import Object

__all__ = ["decode_protobuf"]

_MAGIC: Final = b"k8s\x00"


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    form: str = "string"  # string | bytes | bool | int | message
    message: "Mapping[int, _Field] | None" = None
    repeated: bool = False
    mapped: bool = False


def _message(name: str, fields: "Mapping[int, _Field]", *, repeated: bool = False) -> _Field:
    return _Field(name, "message", fields, repeated)


def _map(name: str, form: str = "string") -> _Field:
    return _Field(name, form, mapped=True)


_TIME: Final = {1: _Field("seconds", "int"), 2: _Field("nanos", "int")}
_OWNER: Final = {
    5: _Field("apiVersion"),
    1: _Field("kind"),
    3: _Field("name"),
    4: _Field("uid"),
    6: _Field("controller", "bool"),
    7: _Field("blockOwnerDeletion", "bool"),
}
_METADATA: Final = _message(
    "metadata",
    {
        1: _Field("name"),
        2: _Field("generateName"),
        3: _Field("namespace"),
        5: _Field("uid"),
        6: _Field("resourceVersion"),
        11: _map("labels"),
        12: _map("annotations"),
        13: _message("ownerReferences", _OWNER, repeated=True),
        14: _Field("finalizers", repeated=True),
    },
)
_REFERENCE: Final = {
    1: _Field("kind"),
    2: _Field("namespace"),
    3: _Field("name"),
    4: _Field("uid"),
    5: _Field("apiVersion"),
    6: _Field("resourceVersion"),
    7: _Field("fieldPath"),
}
_ATTRIBUTES: Final = {
    1: _Field("namespace"),
    2: _Field("verb"),
    3: _Field("group"),
    4: _Field("version"),
    5: _Field("resource"),
    6: _Field("subresource"),
    7: _Field("name"),
}
_NON_RESOURCE: Final = {1: _Field("path"), 2: _Field("verb")}
_PORT: Final = {
    1: _Field("name"),
    2: _Field("protocol"),
    3: _Field("port", "int"),
    4: _message("targetPort", {1: _Field("type", "int"), 2: _Field("intVal", "int"), 3: _Field("strVal")}),
    5: _Field("nodePort", "int"),
    6: _Field("appProtocol"),
}
_SERVICE_SPEC: Final = {
    1: _message("ports", _PORT, repeated=True),
    2: _map("selector"),
    3: _Field("clusterIP"),
    4: _Field("type"),
    5: _Field("externalIPs", repeated=True),
    7: _Field("sessionAffinity"),
    10: _Field("externalName"),
    18: _Field("clusterIPs", repeated=True),
}
_KINDS: Final[dict[tuple[str, str], Mapping[int, _Field]]] = {
    ("v1", "Namespace"): {1: _METADATA, 2: _message("spec", {1: _Field("finalizers", repeated=True)})},
    ("v1", "ConfigMap"): {1: _METADATA, 2: _map("data"), 3: _map("binaryData", "bytes"), 4: _Field("immutable", "bool")},
    ("v1", "Secret"): {
        1: _METADATA,
        2: _map("data", "bytes"),
        3: _Field("type"),
        4: _map("stringData"),
        5: _Field("immutable", "bool"),
    },
    ("v1", "ServiceAccount"): {
        1: _METADATA,
        2: _message("secrets", _REFERENCE, repeated=True),
        3: _message("imagePullSecrets", {1: _Field("name")}, repeated=True),
        4: _Field("automountServiceAccountToken", "bool"),
    },
    ("v1", "Service"): {1: _METADATA, 2: _message("spec", _SERVICE_SPEC)},
    ("v1", "Event"): {
        1: _METADATA,
        2: _message("involvedObject", _REFERENCE),
        3: _Field("reason"),
        4: _Field("message"),
        5: _message("source", {1: _Field("component"), 2: _Field("host")}),
        6: _message("firstTimestamp", _TIME),
        7: _message("lastTimestamp", _TIME),
        8: _Field("count", "int"),
        9: _Field("type"),
        10: _message("eventTime", _TIME),
        11: _message("series", {1: _Field("count", "int"), 2: _message("lastObservedTime", _TIME)}),
        12: _Field("action"),
        14: _Field("reportingComponent"),
        15: _Field("reportingInstance"),
    },
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: _METADATA,
        2: _message(
            "spec", {1: _message("resourceAttributes", _ATTRIBUTES), 2: _message("nonResourceAttributes", _NON_RESOURCE)}
        ),
    },
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): {1: _METADATA, 2: _message("spec", {1: _Field("namespace")})},
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: _METADATA},
    ("v1", "DeleteOptions"): {
        1: _Field("gracePeriodSeconds", "int"),
        2: _message("preconditions", {1: _Field("uid"), 2: _Field("resourceVersion")}),
        3: _Field("orphanDependents", "bool"),
        4: _Field("propagationPolicy"),
        5: _Field("dryRun", repeated=True),
    },
}
_UNKNOWN: Final = {1: _message("type", {1: _Field("apiVersion"), 2: _Field("kind")}), 2: _Field("raw", "raw")}


def decode_protobuf(body: bytes) -> Object:
    """The object in a protobuf body, as JSON would have it. Raises 400 on bytes that are none, 415 on kinds not known."""
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not a Kubernetes protobuf message")
    try:
        envelope = _decode(body[len(_MAGIC) :], _UNKNOWN)
        api_version, kind = envelope.get("type", {}).get("apiVersion", ""), envelope.get("type", {}).get("kind", "")
        fields = _KINDS.get((api_version, kind)) or (_KINDS["v1", kind] if kind == "DeleteOptions" else None)
        if fields is None:
            raise unsupported_media_type(["application/json", "application/yaml"])
        return {"apiVersion": api_version, "kind": kind, **_decode(envelope.get("raw", b""), fields)}
    except (IndexError, OSError, OverflowError, ValueError) as error:
        raise bad_request(f"the protobuf body cannot be read: {error}") from None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _parts(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field; what is neither a number nor has a length is skipped."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
                yield tag >> 3, value
            case 2:
                length, position = _varint(data, position)
                if position + length > len(data):
                    raise ValueError("a field ends beyond the message")
                yield tag >> 3, data[position : position + length]
                position += length
            case 1:
                position += 8
            case 5:
                position += 4
            case other:
                raise ValueError(f"wire type {other} is not known")


def _decode(data: bytes, fields: Mapping[int, _Field]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, raw in _parts(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.mapped:
            if not isinstance(raw, bytes):
                raise ValueError(f"{field.name} is not a map")
            entry = dict(_parts(raw))
            key = entry.get(1, b"")
            result.setdefault(field.name, {})[_value(key, _Field("key"))] = _value(entry.get(2, b""), field)
            continue
        value = _value(raw, field)
        if field.repeated:
            result.setdefault(field.name, []).append(value)
        elif value not in ("", {}) or field.form == "raw":
            result[field.name] = value  # Go writes empty strings for what was not given
    return result


def _value(raw: int | bytes, field: _Field) -> Any:
    if field.form in {"bool", "int"}:
        if not isinstance(raw, int):
            raise ValueError(f"{field.name} is not a number")
        return bool(raw) if field.form == "bool" else raw - (1 << 64) if raw >> 63 else raw
    if not isinstance(raw, bytes):
        raise ValueError(f"{field.name} is a number")  # noqa: TRY004 - of the message, not of a caller
    match field.form:
        case "message":
            return _special(field.name, _decode(raw, field.message or {}))
        case "bytes":
            return base64.b64encode(raw).decode()
        case "raw":
            return raw
        case _:
            return raw.decode()


def _special(name: str, value: dict[str, Any]) -> Any:
    """The messages that JSON writes otherwise: times, and numbers that may be names."""
    if name.endswith("Timestamp"):
        return datetime.fromtimestamp(value.get("seconds", 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if value else None
    if name in {"eventTime", "lastObservedTime"}:  # to the microsecond
        moment = datetime.fromtimestamp(value.get("seconds", 0), UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{value.get('nanos', 0) // 1000:06}Z" if value else None
    if name == "targetPort":
        return value.get("strVal", "") if value.get("type") else value.get("intVal", 0)
    return value
