"""The core kinds: what is defaulted and what is refused."""

import pytest

from eventing.errors import InvalidObjectError
from eventing.resources.core import CONFIG_MAP, EVENT, NAMESPACE, SECRET, SERVICE
from eventing.resources.kinds import Admission, Object

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
