"""Defaults and rules of the core kinds, in Kubernetes' own words (k8s.io/kubernetes, pkg/apis/core/validation)."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventing.errors import Fault, InvalidObjectError
from eventing.resources.kinds import Admission, Object

__all__ = [
    "default_namespace",
    "default_secret",
    "default_service",
    "validate_config_map",
    "validate_event",
    "validate_secret",
    "validate_service",
]

_LARGEST: Final = 1 << 20  # bytes of all values of a Secret or ConfigMap
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_NOT_A_KEY: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NOT_A_LABEL: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_HOST: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NOT_A_HOST: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SERVICE_ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"
# What a Secret of a type that programs know must hold.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_SERVICE_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")


def default_namespace(obj: Object, _admission: Admission) -> None:
    obj["spec"] = obj.get("spec") or {}
    obj["spec"].setdefault("finalizers", ["kubernetes"])
    obj["status"] = obj.get("status") or {}
    obj["status"].setdefault("phase", "Active")
    labels = obj["metadata"].get("labels") or {}
    obj["metadata"]["labels"] = labels
    if name := obj["metadata"].get("name"):
        labels["kubernetes.io/metadata.name"] = name


def default_secret(obj: Object, _admission: Admission) -> None:
    """`stringData` is for writing only: its values move, encoded, into `data`."""
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj["data"] = obj.get("data") or {}
        data.update({key: base64.b64encode(text.encode()).decode() for key, text in plain.items()})


def default_service(obj: Object, _admission: Admission) -> None:
    spec = obj["spec"] = obj.get("spec") or {}
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        if "port" in port:
            port.setdefault("targetPort", port["port"])
        if port.get("nodePort") == 0:  # as kubectl create service writes it: none is wanted
            del port["nodePort"]


def validate_secret(obj: Object, old: Object | None, _admission: Admission) -> None:
    """Values are never told: they are secret."""
    data: Mapping[str, str] = obj.get("data") or {}
    faults = [*_key_faults("data", data)]
    size = 0
    for key, text in data.items():
        try:
            size += len(base64.b64decode(text or "", validate=True))
        except (binascii.Error, ValueError):
            faults.append(Fault(f"data[{key}]", "Invalid value: the value is not base64 (or put it into stringData)"))
    faults += _size_faults(size)
    if old is not None and obj.get("type") != old.get("type"):
        faults.append(_invalid("type", obj.get("type"), "field is immutable"))
    elif not faults:
        faults += _type_faults(obj, data)
    _raise([*faults, *_immutable_faults(obj, old)])


def validate_config_map(obj: Object, old: Object | None, _admission: Admission) -> None:
    data: Mapping[str, str] = obj.get("data") or {}
    binary: Mapping[str, str] = obj.get("binaryData") or {}
    faults = [*_key_faults("data", data), *_key_faults("binaryData", binary)]
    faults += [_invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    faults += _size_faults(sum(len((text or "").encode()) for text in data.values()) + sum(map(len, binary.values())) * 3 // 4)
    _raise([*faults, *_immutable_faults(obj, old)])


def validate_service(obj: Object, _old: Object | None, _admission: Admission) -> None:
    spec = obj["spec"]
    faults: list[Fault] = []
    kind, ports = spec["type"], spec.get("ports") or []
    if kind not in _SERVICE_TYPES:
        faults.append(_unsupported("spec.type", kind, _SERVICE_TYPES))
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").rstrip(".")
        if not name:
            faults.append(Fault("spec.externalName", "Required value"))
        elif not _HOST.fullmatch(name):
            faults.append(_invalid("spec.externalName", name, _NOT_A_HOST))
    elif not ports and spec.get("clusterIP") != "None":
        faults.append(Fault("spec.ports", "Required value"))
    if (affinity := spec.get("sessionAffinity", "None")) not in {"None", "ClientIP"}:
        faults.append(_unsupported("spec.sessionAffinity", affinity, ("ClientIP", "None")))
    names = set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name") or ""
        faults += _port_faults(path, port)
        if not name and len(ports) > 1:
            faults.append(Fault(f"{path}.name", "Required value"))
        elif name and not _LABEL.fullmatch(name):
            faults.append(_invalid(f"{path}.name", name, _NOT_A_LABEL))
        elif name and name in names:
            faults.append(Fault(f"{path}.name", f'Duplicate value: "{name}"'))
        names.add(name)
    _raise(faults)


def validate_event(obj: Object, old: Object | None, _admission: Admission) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace") or "default"
    namespace = obj["metadata"].get("namespace", "")
    if old is None and involved != namespace:
        _raise([_invalid("involvedObject.namespace", involved, "does not match event.namespace")])


def _port_faults(path: str, port: Mapping[str, Any]) -> Iterator[Fault]:
    for name in ("port", "targetPort", "nodePort"):
        number = port.get(name, 0 if name == "port" else 1)
        if isinstance(number, int) and not 1 <= number <= 65535:
            yield Fault(f"{path}.{name}", f"Invalid value: {number}: must be between 1 and 65535, inclusive")
    if (protocol := port.get("protocol", "TCP")) not in _PROTOCOLS:
        yield _unsupported(f"{path}.protocol", protocol, _PROTOCOLS)


def _key_faults(field: str, values: Mapping[str, str]) -> Iterator[Fault]:
    for key in values:
        path = f"{field}[{key}]"
        if len(key) > 253:
            yield _invalid(path, key, "must be no more than 253 characters")
        if not _KEY.fullmatch(key):
            yield _invalid(path, key, _NOT_A_KEY)
        elif key in {".", ".."}:
            yield _invalid(path, key, f"must not be '{key}'")
        elif key.startswith(".."):
            yield _invalid(path, key, "must not start with '..'")


def _size_faults(size: int) -> list[Fault]:
    return [Fault("data", f"Too long: may not be more than {_LARGEST} bytes")] if size > _LARGEST else []


def _type_faults(secret: Object, data: Mapping[str, str]) -> Iterator[Fault]:
    kind = secret.get("type") or ""
    for key in _NEEDED.get(kind, ()):
        if key not in data:
            yield Fault(f"data[{key}]", "Required value")
        elif key.startswith(".dockerc"):
            try:
                json.loads(base64.b64decode(data[key]))
            except ValueError:
                yield Fault(f"data[{key}]", 'Invalid value: "<secret contents redacted>": it is not JSON')
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        yield from (Fault(f"data[{key}]", "Required value") for key in ("username", "password"))
    annotations = secret["metadata"].get("annotations") or {}
    if kind == "kubernetes.io/service-account-token" and not annotations.get(_SERVICE_ACCOUNT_NAME):
        yield Fault(f"metadata.annotations[{_SERVICE_ACCOUNT_NAME}]", "Required value")


def _immutable_faults(obj: Object, old: Object | None) -> list[Fault]:
    """ConfigMap and Secret: what was marked immutable stays so, and as it was."""
    if old is None or not old.get("immutable"):
        return []
    message = "Forbidden: field is immutable when `immutable` is set"
    fields = [field for field in ("data", "binaryData") if (obj.get(field) or {}) != (old.get(field) or {})]
    if not obj.get("immutable"):
        fields.insert(0, "immutable")
    return [Fault(field, message) for field in fields]


def _invalid(path: str, value: object, text: str) -> Fault:
    return Fault(path, f'Invalid value: "{value}": {text}')


def _unsupported(path: str, value: object, supported: tuple[str, ...]) -> Fault:
    shown = ", ".join(f'"{name}"' for name in supported)
    return Fault(path, f'Unsupported value: "{value}": supported values: {shown}')


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise InvalidObjectError("; ".join(map(str, faults)), faults)
