"""`metadata`: its schema, the rules on names, labels and references, and its cheap reading from an encoded object.

Kubernetes, "Object Names and IDs", "Labels and Selectors", "Annotations"; texts as apimachinery's validation prints them.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from eventing.apiserver.failures import Cause
from eventing.resources.kinds import Kind, Object

__all__ = ["METADATA_SCHEMA", "Header", "Owner", "header_of", "metadata_causes"]

_STRING: Final = {"type": "string"}
_STRING_MAP: Final = {"type": "object", "additionalProperties": _STRING}


def _text(description: str) -> dict[str, Any]:
    return {**_STRING, "description": description}


METADATA_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Standard object's metadata: its name, labels and annotations, and what the server keeps of it.",
    "properties": {
        "name": _text("Name of the object, unique within its namespace and kind. Cannot be changed."),
        "generateName": _text("Prefix of the name that the server makes up where no name is given."),
        "namespace": _text("Namespace of the object. Cannot be changed."),
        "labels": {**_STRING_MAP, "description": "Keys and values by which objects are selected."},
        "annotations": {**_STRING_MAP, "description": "Keys and values that others keep with the object."},
        "finalizers": {
            "type": "array",
            "items": _STRING,
            "x-kubernetes-list-type": "set",
            "description": "Names of those who still have to do something before the object may be removed.",
        },
        "ownerReferences": {
            "type": "array",
            "description": "Objects that this one depends on: it is removed when all of them are gone.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "items": {
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {
                    "apiVersion": _STRING,
                    "kind": _STRING,
                    "name": _STRING,
                    "uid": _STRING,
                    "controller": {"type": "boolean"},
                    "blockOwnerDeletion": {"type": "boolean"},
                },
            },
        },
        "uid": _text("Identity of the object in time and space. Set by the server."),
        "resourceVersion": _text("Changes with every change of the object. Set by the server."),
        "generation": {"type": "integer", "format": "int64", "description": "Counts the changes of what is wanted."},
        "creationTimestamp": {**_STRING, "format": "date-time", "description": "When the object was created."},
        "deletionTimestamp": {**_STRING, "format": "date-time", "description": "When its deletion was asked for."},
        "deletionGracePeriodSeconds": {"type": "integer", "format": "int64", "description": "Set by the server."},
        "selfLink": _text("Not used any more."),
        "managedFields": {
            "type": "array",
            "description": "Who set which fields, kept by the server.",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
}


class Owner(msgspec.Struct, frozen=True):
    """One of the objects that an object depends on."""

    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    blockOwnerDeletion: bool = False


class Header(msgspec.Struct, frozen=True):
    """What selection and garbage collection need of an object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    finalizers: list[str] = []
    ownerReferences: list[Owner] = []
    deletionTimestamp: str | None = None


class _Headed(msgspec.Struct):
    metadata: Header


_DECODER: Final = msgspec.json.Decoder(_Headed)


def header_of(data: bytes) -> Header:
    """The header of an encoded object; the rest is skipped, not built."""
    return _DECODER.decode(data).metadata


_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
    "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_TEXT: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_MAX_ANNOTATIONS: Final = 256 * 1024
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63


def metadata_causes(kind: Kind, obj: Object) -> list[Cause]:
    """Everything wrong with the metadata of an object whose types are right already."""
    metadata = obj["metadata"]
    causes = _name_causes(kind, metadata["name"])
    for name, value in (metadata.get("labels") or {}).items():
        causes += _qualified_causes(name, "metadata.labels")
        if len(value) > _MAX_LABEL:
            causes.append(_invalid(value, "metadata.labels", f"must be no more than {_MAX_LABEL} characters"))
        if not _VALUE.fullmatch(value):
            causes.append(_invalid(value, "metadata.labels", _VALUE_TEXT))
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    for name in annotations:
        causes += _qualified_causes(name.lower(), "metadata.annotations")
    if sum(len(name) + len(value.encode()) for name, value in annotations.items()) > _MAX_ANNOTATIONS:
        text = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        causes.append(Cause("FieldValueTooLong", text, "metadata.annotations"))
    for name in metadata.get("finalizers") or ():
        causes += _qualified_causes(name, "metadata.finalizers")
    return causes + _owner_causes(metadata.get("ownerReferences") or ())


def _name_causes(kind: Kind, name: str) -> list[Cause]:
    core = kind.kind if not kind.group else ""
    pattern, text, limit = {
        "Namespace": (_LABEL, _LABEL_TEXT, _MAX_LABEL),
        "Service": (_LABEL_1035, _LABEL_1035_TEXT, _MAX_LABEL),
    }.get(core, (_SUBDOMAIN, _SUBDOMAIN_TEXT, _MAX_NAME))
    causes = []
    if len(name) > limit:
        causes.append(_invalid(name[:_MAX_NAME], "metadata.name", f"must be no more than {limit} characters"))
    elif not pattern.fullmatch(name):
        causes.append(_invalid(name, "metadata.name", text))
    return causes


def _qualified_causes(key: str, path: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > _MAX_NAME):
        return [_invalid(key, path, f"prefix part {_SUBDOMAIN_TEXT}")]
    if len(name) > _MAX_LABEL:
        return [_invalid(key, path, f"name part must be no more than {_MAX_LABEL} characters")]
    return [] if _QUALIFIED.fullmatch(name) else [_invalid(key, path, _QUALIFIED_TEXT)]


def _owner_causes(owners: Any) -> list[Cause]:
    causes, controllers = [], 0
    for index, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                path = f"metadata.ownerReferences[{index}].{name}"
                causes.append(Cause("FieldValueInvalid", f'Invalid value: "": {name} must not be empty', path))
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        text = "Invalid value: Only one reference can have Controller set to true"
        causes.append(Cause("FieldValueInvalid", text, "metadata.ownerReferences"))
    return causes


def _invalid(value: str, path: str, text: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": {text}', path)
