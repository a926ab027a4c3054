"""The core kinds: what is defaulted and what is refused."""

import copy

import pytest

from eventing.errors import InvalidObjectError
from eventing.resources.core import CONFIG_MAP, EVENT, NAMESPACE, SECRET, SERVICE
from eventing.resources.kinds import Admission, Kind, Object

CREATE = Admission("u", "CREATE")
UPDATE = Admission("u", "UPDATE")


def test_secret_strings_move_into_data() -> None:
    secret: Object = {"metadata": {"name": "s"}, "data": {"a": "b2xk", "b": "eA=="}, "stringData": {"a": "new"}}
    SECRET.default(secret, CREATE)
    assert secret == {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "bmV3", "b": "eA=="}}
    SECRET.validate(secret, None, CREATE)


def test_secret_data_is_base64_and_the_fault_does_not_tell_the_value() -> None:
    secret: Object = {"metadata": {"name": "s"}, "type": "Opaque", "data": {"password": "hunter2!"}}
    with pytest.raises(InvalidObjectError, match=r"data\[password\]") as caught:
        SECRET.validate(secret, None, CREATE)
    assert "hunter2" not in str(caught.value)


def test_the_type_of_a_secret_is_immutable() -> None:
    old: Object = {"metadata": {"name": "s"}, "type": "Opaque"}
    with pytest.raises(InvalidObjectError, match="field is immutable"):
        SECRET.validate({**old, "type": "other"}, old, UPDATE)


@pytest.mark.parametrize("change", [{"data": {"a": "2"}}, {"immutable": False}])
def test_immutable_config_maps_stay(change: Object) -> None:
    old: Object = {"metadata": {"name": "c"}, "immutable": True, "data": {"a": "1"}}
    CONFIG_MAP.validate(dict(old), old, UPDATE)
    with pytest.raises(InvalidObjectError, match="immutable when `immutable` is set"):
        CONFIG_MAP.validate({**old, **change}, old, UPDATE)


def test_namespace_defaults() -> None:
    namespace: Object = {"metadata": {"name": "shop"}}
    NAMESPACE.default(namespace, CREATE)
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert (namespace["spec"], namespace["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


def test_service_defaults() -> None:
    service: Object = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    SERVICE.default(service, CREATE)
    assert service["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ports": [{"port": 80, "targetPort": 80}],
    }
    # Ports are told apart by port and protocol, so the protocol is filled in by the schema, before patches are merged.
    ports = SERVICE.schema["properties"]["spec"]["properties"]["ports"]
    assert ports["items"]["properties"]["protocol"]["default"] == "TCP"


def test_an_event_is_in_the_namespace_of_what_it_is_about() -> None:
    event: Object = {"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}}
    with pytest.raises(InvalidObjectError, match=r"does not match event\.namespace"):
        EVENT.validate(event, None, CREATE)
    event["involvedObject"] = {"namespace": "a"}
    EVENT.validate(event, None, CREATE)


SERVICE_SPEC: Object = {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("kind", "parts", "text"),
    [
        (SECRET, {"data": {"a b": "eA=="}}, 'data[a b]: Invalid value: "a b": a valid config key must consist of'),
        (SECRET, {"data": {"..": "eA=="}}, "data[..]: Invalid value: \"..\": must not be '..'"),
        (SECRET, {"data": {"..a": "eA=="}}, "must not start with '..'"),
        (SECRET, {"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}, "data[tls.key]: Required value"),
        (SECRET, {"type": "kubernetes.io/basic-auth"}, "data[username]: Required value"),
        (SECRET, {"type": "kubernetes.io/ssh-auth"}, "data[ssh-privatekey]: Required value"),
        (SECRET, {"type": "kubernetes.io/service-account-token"}, "metadata.annotations[kubernetes.io/service-account.name]"),
        (SECRET, {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}, "<secret contents redacted>"),
        (SECRET, {"data": {"a": "eHh4" * (1 << 19)}}, "data: Too long: may not be more than 1048576 bytes"),
        (CONFIG_MAP, {"data": {"a/b": "x"}}, 'data[a/b]: Invalid value: "a/b": a valid config key'),
        (CONFIG_MAP, {"data": {"k" * 254: "x"}}, "must be no more than 253 characters"),
        (CONFIG_MAP, {"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, "duplicate of key present in binaryData"),
        (CONFIG_MAP, {"data": {"a": "x" * (1 << 20), "b": "y"}}, "Too long"),
        (SERVICE, {"spec": {"type": "ClusterIP"}}, "spec.ports: Required value"),
        (
            SERVICE,
            {"spec": {"type": "Odd", "ports": [{"port": 1}]}},
            'spec.type: Unsupported value: "Odd": supported values: "Cl',
        ),
        (SERVICE, {"spec": {"type": "ExternalName"}}, "spec.externalName: Required value"),
        (SERVICE, {"spec": {"type": "ExternalName", "externalName": "a_b"}}, "a lowercase RFC 1123 subdomain"),
        (
            SERVICE,
            {"spec": {**SERVICE_SPEC, "ports": [{"port": 0}]}},
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (SERVICE, {"spec": {**SERVICE_SPEC, "ports": [{"port": 70000}]}}, "spec.ports[0].port: Invalid value: 70000"),
        (SERVICE, {"spec": {**SERVICE_SPEC, "ports": [{"port": 1}, {"port": 2}]}}, "spec.ports[0].name: Required value"),
        (
            SERVICE,
            {"spec": {**SERVICE_SPEC, "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}},
            'spec.ports[1].name: Duplicate value: "a"',
        ),
        (SERVICE, {"spec": {**SERVICE_SPEC, "ports": [{"port": 1, "name": "A"}]}}, "a lowercase RFC 1123 label"),
        (
            SERVICE,
            {"spec": {**SERVICE_SPEC, "ports": [{"port": 1, "protocol": "FTP"}]}},
            'spec.ports[0].protocol: Unsupported value: "FTP": supported values: "SCTP", "TCP", "UDP"',
        ),
        (SERVICE, {"spec": {**SERVICE_SPEC, "sessionAffinity": "Some"}}, "spec.sessionAffinity: Unsupported value"),
    ],
)
def test_what_kubernetes_refuses(kind: Kind, parts: Object, text: str) -> None:
    obj: Object = {"metadata": {"name": "x"}, "type": "Opaque", **parts}
    with pytest.raises(InvalidObjectError) as caught:
        kind.validate(obj, None, CREATE)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        SERVICE_SPEC,
        {"type": "ExternalName", "externalName": "example.com."},
        {"type": "ClusterIP", "clusterIP": "None"},
        {"type": "NodePort", "ports": [{"port": 1, "name": "a", "targetPort": "http"}, {"port": 2, "name": "b", "nodePort": 0}]},
    ],
)
def test_services_that_are_right(spec: Object) -> None:
    service = {"metadata": {"name": "s"}, "spec": copy.deepcopy(spec)}
    SERVICE.default(service, CREATE)
    SERVICE.validate(service, None, CREATE)
