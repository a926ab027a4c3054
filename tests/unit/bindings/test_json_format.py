"""The JSON event format: one event, a batch, and bytes that are neither."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.json_format import decode_batch, decode_structured, encode_structured
from eventing.errors import InvalidEventError
from eventing.event import Event

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def body(**members: object) -> bytes:
    return json.dumps(REQUIRED | members).encode()


def faults(data: bytes) -> list[str]:
    with pytest.raises(InvalidEventError) as refused:
        decode_structured(data)
    return [fault.field for fault in refused.value.faults]


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ({}, b""),
        ({"data": None}, b""),
        ({"data": {"a": [1, 2]}}, b'{"a": [1, 2]}'),
        ({"data": "x"}, b'"x"'),
        ({"data": "x", "datacontenttype": "application/json"}, b'"x"'),
        ({"data": "x", "datacontenttype": "application/vnd.y+json;v=1"}, b'"x"'),
        ({"data": "x", "datacontenttype": "text/plain"}, b"x"),
        ({"data": "<a>ü</a>", "datacontenttype": "application/xml"}, "<a>ü</a>".encode()),
        ({"data": 5, "datacontenttype": "text/plain"}, b"5"),
        ({"data_base64": "AP8="}, b"\x00\xff"),
        ({"data_base64": "", "datacontenttype": "image/png"}, b""),
        ({"data": "AP8=", "datacontentencoding": "base64", "specversion": "0.3"}, b"\x00\xff"),
        ({"data": "AP8=", "datacontentencoding": "base64"}, b'"AP8="'),
    ],
)
def test_data(members: dict[str, object], data: bytes) -> None:
    sent = body(**members)
    event = decode_structured(sent)
    assert event.data == data
    assert event.structured == sent


@pytest.mark.parametrize(
    ("sent", "value"),
    [("5", "5"), ("-2147483648", "-2147483648"), ("true", "true"), ("false", "false"), ('"x"', "x"), ('"\\u20ac"', "€")],
)
def test_attributes_have_their_canonical_form(sent: str, value: str) -> None:
    assert decode_structured(body()[:-1] + f',"ext":{sent}}}'.encode()).attributes["ext"] == value


def test_null_is_the_same_as_absent() -> None:
    assert "subject" not in decode_structured(body(subject=None)).attributes
    assert faults(body(id=None)) == ["id"]


@pytest.mark.parametrize(
    ("sent", "at_fault"),
    [
        (b"", [""]),
        (b"[]", [""]),
        (b"5", [""]),
        (b"nonsense", [""]),
        (b'{"specversion":"1.0"', [""]),
        (b"\xef\xbb\xbf" + body(), [""]),
        (body() + b"x", [""]),
        (body(data="x").replace(b'"x"', b'"\xff"'), [""]),
        (body(data={"a": 1}).replace(b'"a"', b'"\xff"'), [""]),
        (body(ext="y").replace(b'"y"', b'"\xff"'), [""]),
        (body(ext="y").replace(b'"ext"', b'"\xff"'), [""]),
        (body(id=""), ["id"]),
        (body(id="a\x00b"), ["id"]),
        (body(id="x").replace(b'"x"', b'"\\ud800"'), [""]),
        (body(ext=1.5), ["ext"]),
        (body(ext=[1]), ["ext"]),
        (body(ext={"a": 1}, other=1.5), ["ext", "other"]),
        (body(ext=1).replace(b'"ext": 1', b'"ext": ' + b"9" * 5000), ["ext"]),
        (body(ext=1).replace(b'"ext": 1', b'"ext": 1e400'), ["ext"]),
        (body(ext=1).replace(b'"ext": 1', b'"ext": NaN'), [""]),
        (body(**{"Ext": "x", "a-b": "y"}), ["Ext", "a-b"]),
        (body(**{"²": "x"}), ["²"]),
        (body(**{"": "x"}), [""]),
        (body(data=1, data_base64="AA=="), ["data"]),
        (body(data_base64="not base64"), ["data_base64"]),
        (body(data_base64=5), ["data_base64"]),
        (body(data="%", specversion="0.3", datacontentencoding="base64"), ["data"]),
        (body(data=b"[".decode() * 3), None),
        (body(data=1).replace(b'"data": 1', b'"data": ' + b"[" * 100_000 + b"]" * 100_000), [""]),
        (body(ext=1).replace(b'"ext": 1', b'"ext": ' + b"[" * 100_000 + b"]" * 100_000), [""]),
    ],
)
def test_faults(sent: bytes, at_fault: list[str] | None) -> None:
    if at_fault is None:
        decode_structured(sent)
    else:
        assert faults(sent) == at_fault


def test_large_numbers_and_duplicate_members_keep_their_bytes() -> None:
    data = b'{"n":123456789012345678901234567890,"n":1.0e400}'
    sent = body()[:-1] + b',"data":' + data + b"}"
    event = decode_structured(sent)
    assert event.data == data
    letter = encode_structured(event, {"knativeerrorcode": "500"})
    assert data in letter
    assert decode_structured(letter).attributes == event.attributes | {"knativeerrorcode": "500"}


def test_what_is_added_to_a_structured_event_takes_the_place_of_what_was_there() -> None:
    event = decode_structured(body(knativeerrorcode=404, n=5, flag=True, data=None))
    letter = json.loads(encode_structured(event, {"knativeerrorcode": "500"}))
    assert letter == REQUIRED | {"knativeerrorcode": "500", "n": 5, "flag": True, "data": None}


@pytest.mark.parametrize(
    ("content_type", "data", "member"),
    [
        ("application/json", b'{"a": 1}', {"data": {"a": 1}}),
        ("", b"[1]", {"data": [1]}),
        ("application/json", b"null", {"data_base64": "bnVsbA=="}),
        ("application/json", b"{broken", {"data_base64": base64.b64encode(b"{broken").decode()}),
        ("application/json", b'"\xff"', {"data_base64": base64.b64encode(b'"\xff"').decode()}),
        ("text/plain", "ü".encode(), {"data": "ü"}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
        ("image/png", b"x", {"data_base64": "eA=="}),
        ("image/png", b"", {}),
    ],
)
def test_encoding(content_type: str, data: bytes, member: dict[str, object]) -> None:
    attributes = REQUIRED | ({"datacontenttype": content_type} if content_type else {})
    encoded = encode_structured(Event(attributes, data))
    assert json.loads(encoded) == attributes | member
    assert decode_structured(encoded).data == data


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_faults(data: bytes) -> None:
    for decoding in (decode_structured, decode_batch):
        try:
            decoding(data)
        except InvalidEventError as error:
            assert error.faults


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*REQUIRED, "data", "data_base64", "time", "ext", "E", "datacontenttype"]), _JSON))
def test_any_json_object_is_an_event_or_its_faults(members: dict[str, object]) -> None:
    data = json.dumps(members).encode()
    try:
        event = decode_structured(data)
    except InvalidEventError as error:
        assert error.faults
    else:
        assert event.structured == data
        assert decode_structured(encode_structured(event, {"more": "x"})).attributes == event.attributes | {"more": "x"}
    try:
        assert len(decode_batch(b"[" + data + b"," + data + b"]")) == 2
    except InvalidEventError as error:
        assert all(fault.field.startswith("[") for fault in error.faults)
