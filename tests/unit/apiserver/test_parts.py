"""The pure parts: protobuf, JSON paths, merges, values, selectors, certificates, the kubeconfig."""

import base64
import ssl
import stat
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from eventing.apiserver import ensure_certificates, write_kubeconfig
from eventing.apiserver.jsonpath import JsonPath, JsonPathError
from eventing.apiserver.merge import merge_patch, strategic_merge
from eventing.apiserver.protobuf import decode_protobuf
from eventing.apiserver.requests import decode_yaml, parse_view
from eventing.apiserver.schema import Findings, Node
from eventing.apiserver.store import Frames
from eventing.apiserver.values import value_checks
from eventing.errors import ApiError


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    length = len(value)
    prefix = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + prefix + value


def envelope(api_version: bytes, kind: bytes, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, api_version) + field(2, kind)) + field(2, raw) + field(3, b"") + field(4, b"")


def test_protobuf_objects_of_typed_clients() -> None:
    metadata = field(1, b"s") + field(2, b"") + field(3, b"ns") + field(11, field(1, b"a") + field(2, b"bc"))
    secret = field(1, metadata) + field(2, field(1, b"key") + field(2, b"\x00\xff")) + field(3, b"Opaque") + field(5, 1)
    assert decode_protobuf(envelope(b"v1", b"Secret", secret)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "ns", "labels": {"a": "bc"}},
        "data": {"key": base64.b64encode(b"\x00\xff").decode()},
        "type": "Opaque",
        "immutable": True,
    }
    options = field(2, field(1, b"uid")) + field(4, b"Background")
    assert decode_protobuf(envelope(b"meta.k8s.io/v1", b"DeleteOptions", options))["preconditions"] == {"uid": "uid"}
    with pytest.raises(ApiError) as caught:
        decode_protobuf(envelope(b"apps/v1", b"Deployment", b""))
    assert caught.value.code == 415


def test_protobuf_events_have_times_of_two_kinds() -> None:
    exact = field(1, 100) + bytes([2 << 3, 0xC0, 0x84, 0x3D])  # 100 s and 1,000,000 ns
    body = field(1, field(1, b"e")) + field(7, field(1, 100)) + field(10, exact) + field(11, field(1, 3) + field(2, exact))
    event = decode_protobuf(envelope(b"v1", b"Event", body))
    assert (event["lastTimestamp"], event["eventTime"]) == ("1970-01-01T00:01:40Z", "1970-01-01T00:01:40.001000Z")
    assert event["series"] == {"count": 3, "lastObservedTime": "1970-01-01T00:01:40.001000Z"}


@given(st.binary(max_size=200))
def test_protobuf_that_is_none_is_a_bad_request(data: bytes) -> None:
    for body in (data, b"k8s\x00" + data, envelope(b"v1", b"Secret", data[:100])):
        try:
            decode_protobuf(body)
        except ApiError as error:
            assert error.code in {400, 415}


OBJECT = {"a": {"b.c": [1, 2, {"t": "x", "n": 5}, {"t": "y"}]}, "e": None, "m": {"k": "v"}}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a", [OBJECT["a"]]),
        ("{.m.k}", ["v"]),
        ("$.m['k']", ["v"]),
        (r".a.b\.c[0]", [1]),
        (".a['b.c'][-1].t", ["y"]),
        (".a['b.c'][9]", []),
        (".m.*", ["v"]),
        (".a['b.c'][*].t", ["x", "y"]),
        ('.a["b.c"][?(@.t=="y")].t', ["y"]),
        (".a['b.c'][?(@.n>4)].t", ["x"]),
        (".a['b.c'][?(@.n)].t", ["x"]),
        (".e.f", []),
        (".e", [None]),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert JsonPath(path).find(OBJECT) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b==c)]", ".a[x]", "..a["])
def test_json_paths_that_are_none(path: str) -> None:
    with pytest.raises(JsonPathError):
        JsonPath(path)


# RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


KEYS = {"ports": "port", "names": ""}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"ports": [{"port": 1, "n": "a"}]}, {"ports": [{"port": 1, "m": "b"}, {"port": 2}]}, {"ports": [{"port": 1, "n": "a", "m": "b"}, {"port": 2}]}),
        ({"ports": [{"port": 1}, {"port": 2}]}, {"ports": [{"$patch": "delete", "port": 1}]}, {"ports": [{"port": 2}]}),
        ({"ports": [{"port": 1}]}, {"ports": [{"$patch": "replace"}, {"port": 3}]}, {"ports": [{"port": 3}]}),
        ({"names": ["a"]}, {"names": ["b"], "$deleteFromPrimitiveList/names": ["a"]}, {"names": ["b"]}),
        ({"names": ["a", "b"]}, {"$setElementOrder/names": ["b", "a"]}, {"names": ["b", "a"]}),
        ({"names": ["c", "a", "d", "b"]}, {"$setElementOrder/names": ["b", "a"]}, {"names": ["c", "d", "b", "a"]}),
        ({"ports": [{"port": 1}, {"port": 2}]}, {"$setElementOrder/ports": [{"port": 3}, {"port": 2}], "ports": [{"port": 3}]}, {"ports": [{"port": 3}, {"port": 1}, {"port": 2}]}),
        ({"other": [1]}, {"other": [2]}, {"other": [2]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$patch": "replace", "d": 3}}, {"a": {"d": 3}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$retainKeys": ["c", "d"], "d": 3}}, {"a": {"c": 2, "d": 3}}),
        ({"a": {"b": 1}}, {"a": {"$patch": "delete"}}, {"a": {}}),
        ({"a": 1}, {"a": None}, {}),
    ],
)  # fmt: skip
def test_strategic_merge(target: Any, patch: Any, result: Any) -> None:
    assert strategic_merge(target, patch, KEYS) == result


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"enum": ["a", 1]}, ["a", 1], ["b", True]),
        ({"pattern": "^a+$"}, ["aa", 5], ["b"]),
        ({"type": "string", "format": "date-time"}, ["2026-01-01T00:00:00Z"], ["yesterday"]),
        ({"type": "string", "format": "uuid"}, ["6d7e747f-40d9-4470-b839-4fa14e9ec82e"], ["x"]),
        ({"type": "string", "format": "made-up"}, ["x"], []),
        ({"maximum": 3, "exclusiveMaximum": True}, [2], [3]),
        ({"minimum": 3}, [3], [2.9]),
        ({"multipleOf": 2}, [4], [3]),
        ({"maxLength": 2, "minLength": 1}, ["é", "ab"], ["", "abc"]),
        ({"maxItems": 1}, [[1]], [[1, 2]]),
        ({"minProperties": 1}, [{"a": 1}], [{}]),
        ({"uniqueItems": True}, [[1, 2]], [[1, 1]]),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"b": 1}], [{}]),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"b": 1}], [{"a": 1, "b": 1}]),
        ({"allOf": [{"properties": {"a": {"minimum": 1}}}]}, [{"a": 1}], [{"a": 0}]),
        ({"not": {"required": ["a"]}}, [{}], [{"a": 1}]),
    ],
)
def test_value_rules(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    def wrong(value: Any) -> bool:
        return any(check(value, "x") is not None for check in value_checks(schema))

    assert [value for value in good if wrong(value)] == []
    assert [value for value in bad if not wrong(value)] == []


def test_nulls_are_dropped_where_a_default_stands_or_go_has_a_struct() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {"type": "string"},
            "c": {"type": "string", "nullable": True},
        },
    }
    value: dict[str, Any] = {"a": None, "b": None, "c": None}
    findings = Findings()
    Node(schema).walk(value, "", findings)
    assert (value, [cause.field for cause in findings.causes]) == ({"a": "x", "b": None, "c": None}, ["b"])
    findings = Findings()
    Node(schema, typed=True).walk(value, "", findings)
    assert (value, findings.causes) == ({"a": "x", "c": None}, [])


def test_int_or_string() -> None:
    node = Node({"x-kubernetes-int-or-string": True})
    for value, faults in ((80, 0), ("http", 0), (True, 1), ([], 1)):
        findings = Findings()
        node.walk(value, "port", findings)
        assert len(findings.causes) == faults


def test_yaml_is_read_as_json_would_be() -> None:
    assert decode_yaml(b"a: 2026-01-01\nb: 0x10\nc: [yes]\n") == {"a": "2026-01-01", "b": 16, "c": [True]}
    assert decode_yaml(b'{"a": "b"}') == {"a": "b"}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", ""),
        ("*/*", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table"),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", ""),
        ("application/vnd.kubernetes.protobuf,application/json", ""),
        ("application/json;q=0.5,application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io;q=0.9", "PartialObjectMetadata"),
    ],
)
def test_what_the_client_accepts(accept: str, form: str) -> None:
    assert parse_view(accept).form == form


def test_certificates_last_and_follow_the_hosts(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    paths = ensure_certificates(tmp_path / "pki", ["localhost", "127.0.0.1", "::1"], now=now)
    before = {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    ensure_certificates(tmp_path / "pki", ["localhost"], now=now)
    assert {path: path.read_bytes() for path in before} == before, "what is good stays"
    ensure_certificates(tmp_path / "pki", ["mesh.example.com"], now=now)
    assert paths.ca_cert.read_bytes() == before[paths.ca_cert], "the authority stays: kubeconfigs stay good"
    server = x509.load_pem_x509_certificate(paths.server_cert.read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mesh.example.com"]
    renewed = paths.server_cert.read_bytes()
    ensure_certificates(tmp_path / "pki", ["mesh.example.com"], now=now + timedelta(days=350))
    assert paths.server_cert.read_bytes() != renewed
    paths.server_key.write_text("broken")
    ensure_certificates(tmp_path / "pki", ["mesh.example.com"], now=now)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths.server_cert, paths.server_key)


def test_the_kubeconfig_has_everything_in_it_and_is_private(tmp_path: Path) -> None:
    paths = ensure_certificates(tmp_path / "pki", ["localhost"])
    target = tmp_path / "kubeconfig"
    target.write_text("old")
    write_kubeconfig(target, server="https://localhost:1", ca=paths.ca_cert, token="t0ken")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    config = yaml.safe_load(target.read_text())
    assert config["users"][0]["user"] == {"token": "t0ken"}
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == paths.ca_cert.read_bytes()


def test_double_is_skipped() -> None:
    body = envelope(b"v1", b"ConfigMap", bytes([9 << 3 | 1]) + struct.pack("<d", 1.0) + field(1, field(1, b"c")))
    assert decode_protobuf(body)["metadata"] == {"name": "c"}


def test_frames_are_bounded_by_their_size_and_the_latest_stays() -> None:
    frames = Frames()
    for number in range(100):
        frames.put(number, b"x" * 10_000)
    assert frames.get(99) is not None
    assert frames.get(0) is None
    assert sum(frames.get(number) is not None for number in range(100)) <= 26
    frames.put("large", b"x" * 1_000_000)
    assert frames.get("large") is not None
    assert frames.get(99) is None
