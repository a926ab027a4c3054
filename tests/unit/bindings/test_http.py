"""The HTTP binding: what comes in is read by the book, what goes out is what came in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.http import (
    NAMES_MAX,
    HeaderNames,
    UnsupportedFormatError,
    binary_head,
    decode,
    decode_reply,
    event_head,
    in_format,
    payload,
    take_along,
    with_attributes,
)
from eventing.errors import InvalidEventError
from eventing.event import Event
from tests.unit.bindings.messages import events, parsed, through_the_wire

HEAD = "ce-specversion: 1.0\nce-id: 1\nce-source: /shop\nce-type: t\n"
STRUCTURED = "content-type: application/cloudevents+json\n"
BATCH = "content-type: application/cloudevents-batch+json\n"
BODY = b'{"specversion":"1.0","id":"1","source":"/shop","type":"t"%b}'


def one(head: str, body: bytes = b"") -> Event:
    (event,) = decode(*parsed(head, body))
    return event


def faults(head: str, body: bytes = b"") -> list[str]:
    with pytest.raises(InvalidEventError) as refused:
        decode(*parsed(head, body))
    return [fault.field for fault in refused.value.faults]


@given(events)
def test_what_goes_out_comes_in_the_same(event: Event) -> None:
    (again,) = decode(*through_the_wire(event))
    assert again.attributes == event.attributes
    assert again.data == event.data
    assert again.headers == event.headers
    assert again.hops == event.hops + 1


@given(events)
def test_what_comes_in_goes_out_the_same(event: Event) -> None:
    """Two hops: attributes, data and what travels beside them, whatever mode is asked for on the way."""
    (first,) = decode(*through_the_wire(event))
    (second,) = decode(*through_the_wire(first))
    assert (second.attributes, second.data, second.headers) == (event.attributes, event.data, event.headers)
    assert second.hops == event.hops + 2


@given(events)
def test_either_format_carries_the_whole_event(event: Event) -> None:
    structured = in_format(event, "json")
    (again,) = decode(*through_the_wire(structured))
    assert again.structured is not None
    assert again.attributes == event.attributes
    assert again.data == event.data or again.data == event.data.strip()  # JSON between members has no white space of its own
    back = in_format(again, "binary")
    assert back.structured is None
    (third,) = decode(*through_the_wire(back))
    assert (third.attributes, third.data, third.headers) == (again.attributes, again.data, again.headers)
    assert in_format(back, "binary") is back
    assert in_format(again, "json") is again
    assert in_format(again, "") is again


@given(events, st.booleans())
def test_attributes_are_added_and_nothing_else_changes(event: Event, structured: bool) -> None:
    if structured:
        event = in_format(event, "json")
    (letter,) = decode(*through_the_wire(with_attributes(event, {"knativeerrorcode": "503"})))
    (before,) = decode(*through_the_wire(event))
    assert letter.attributes == before.attributes | {"knativeerrorcode": "503"}
    assert letter.data == before.data
    assert letter.headers == event.headers
    assert letter.hops == event.hops + 1


def test_a_plain_event_leaves_byte_for_byte_as_it_came() -> None:
    head = HEAD + "content-type: application/json\ntraceparent: 00-1-2-01\nknative-x: y\nx-request-id: r\naccept: */*\n"
    event = one(head, b'{ "n" : 1 }')
    wire = event_head(event)
    for line in ("ce-id: 1", "content-type: application/json", "traceparent: 00-1-2-01", "knative-x: y", "x-request-id: r"):
        assert line.encode() + b"\r\n" in wire
    assert b"accept" not in wire
    assert payload(event) == b'{ "n" : 1 }'


def test_a_structured_event_leaves_byte_for_byte_as_it_came() -> None:
    body = b' {"data" : {"a": 1e3}, "specversion":"1.0","id":"1","source":"/s","type":"t","n":5,"b":true} '
    event = one(STRUCTURED, body)
    assert payload(event) == body
    assert event.data == b'{"a": 1e3}'
    assert event.attributes["n"] == "5"
    assert event.attributes["b"] == "true"


@pytest.mark.parametrize("version", ["1.0", "0.3"])
def test_the_version_stays_what_it_is(version: str) -> None:
    """CDP-02, CDP-03."""
    event = one(HEAD.replace("1.0", version), b"x")
    assert event.attributes["specversion"] == version
    assert b"ce-specversion: " + version.encode() in event_head(event)
    structured = in_format(event, "json")
    assert json.loads(payload(structured))["specversion"] == version
    assert one(STRUCTURED, payload(structured)).attributes["specversion"] == version


def test_version_0_3_has_its_own_base64() -> None:
    body = b'{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"base64","data":"AP8="}'
    event = one(STRUCTURED, body)
    assert event.data == b"\x00\xff"
    binary = in_format(event, "binary")
    assert b"datacontentencoding" not in event_head(binary), "the data is not base64 any more"
    assert one(STRUCTURED, payload(in_format(binary, "json"))).data == b"\x00\xff"
    assert payload(event) == body


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("plain", "plain"),
        ("a%20b", "a b"),
        ("%E2%82%AC", "€"),
        ("€", "€"),
        ('"quoted"', "quoted"),
        (r'"a \"b\" \\c"', r'a "b" \c'),
        ('"a%20b"', "a b"),
        ('"', '"'),
        ("100%", "100%"),
        ("50%zz", "50%zz"),
        ("trailing   ", "trailing"),
        ("  leading", "leading"),
        ("tab\t", "tab"),
        ("a  b", "a  b"),
    ],
)
def test_header_values_are_decoded(sent: str, meant: str) -> None:
    """HTTP binding §3.1.3.2; RFC 9110 §5.5 for the white space around them."""
    for name in ("type", "subject", "extension"):
        event = one(HEAD.replace("ce-type: t\n", "") + f"ce-type: t\nce-{name}: {sent}\n" if name != "type" else
                    HEAD.replace("ce-type: t", f"ce-type: {sent}"))  # fmt: skip
        assert event.attributes[name] == meant
        (again,) = decode(*through_the_wire(event))
        assert again.attributes[name] == meant


def test_ids_are_found_by_what_they_mean() -> None:
    for sent in ("a%20b", '"a b"', "a b  "):
        assert one(HEAD.replace("ce-id: 1", f"ce-id: {sent}")).raw_id == b"a b"


@pytest.mark.parametrize(
    ("head", "at_fault"),
    [
        ("", ["ce-specversion", "ce-id", "ce-source", "ce-type"]),
        (HEAD.replace("ce-id: 1\n", ""), ["ce-id"]),
        (HEAD.replace("ce-id: 1", "ce-id:"), ["ce-id"]),
        (HEAD + "ce-id: 1\n", ["ce-id"]),
        (HEAD + "ce-id: 2\nce-source: /x\n", ["ce-id", "ce-source"]),
        (HEAD + "CE-Type: u\n", ["ce-type"]),
        (HEAD + "content-type: text/plain\ncontent-type: text/plain\n", ["content-type"]),
        (HEAD + "content-type: nonsense\n", ["content-type"]),
        (STRUCTURED + "content-type: application/json\n", ["content-type"]),
        (HEAD + "content-type: application/json\n" + STRUCTURED, ["content-type"]),
        (HEAD + "ce-datacontenttype: text/plain\n", ["ce-datacontenttype"]),
        (HEAD + "ce-bad_name: x\n", ["ce-bad_name"]),
        (HEAD + "ce-: x\n", ["ce-"]),
        (HEAD.replace("/shop", "a b"), ["ce-source"]),
        (HEAD.replace("1.0", "1.1"), ["ce-specversion"]),
        (HEAD + "ce-time: soon\nce-subject:\n", ["ce-time", "ce-subject"]),
        (HEAD + "ce-ext: a%0Ab\n", ["ce-ext"]),
        (HEAD + "ce-ext: a%00\n", ["ce-ext"]),
        (HEAD + "ce-ext: %ff\n", ["ce-ext"]),
        (HEAD + "ce-ext: a\tb\n", ["ce-ext"]),
        (HEAD + "ce-dataschema:\n", ["ce-dataschema"]),
    ],
)
def test_every_fault_is_named_by_its_header(head: str, at_fault: list[str]) -> None:
    assert sorted(faults(head)) == sorted(at_fault)


def test_a_fault_is_found_again_after_the_event_was_valid_once() -> None:
    """What was found valid is remembered; what is not must not profit from it."""
    for _ in range(3):
        one(HEAD + "content-type: application/json\n")
        assert faults(HEAD.replace("/shop", "a b")) == ["ce-source"]
        assert faults(HEAD + "content-type: x\n") == ["content-type"]
        assert faults(HEAD + "content-type: application/json\ncontent-type: application/json\n") == ["content-type"]


def test_what_is_remembered_is_bounded() -> None:
    for number in range(NAMES_MAX * 2):
        one(HEAD.replace("/shop", f"/s{number}"))
    one(HEAD.replace("/shop", "/" + "x" * 20_000))
    source, _ = parsed("ce-source: /x\n")[0][0]
    assert source.known is not None
    assert len(source.known) <= NAMES_MAX
    assert max(map(len, source.known)) <= 256
    names = HeaderNames()
    for number in range(NAMES_MAX * 2):
        assert names[b"X-%d" % number].lower == b"x-%d" % number
    assert len(names) == NAMES_MAX
    assert names[b"y" * 65].lower == b"y" * 65


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+xml",
        "application/cloudevents",
        "application/cloudevents+avro; charset=utf-8",
        "application/cloudevents-batch",
        "application/cloudevents+json; charset=utf-16",
        "application/cloudevents-batch+json; charset=latin1",
    ],
)
def test_formats_that_are_not_read_are_said_to_be_unsupported(content_type: str) -> None:
    with pytest.raises(UnsupportedFormatError):
        decode(*parsed(f"content-type: {content_type}\n", BODY % b""))


@pytest.mark.parametrize("head", [HEAD, STRUCTURED, HEAD + "content-type: application/json\n"])
def test_a_compressed_body_is_said_to_be_unsupported(head: str) -> None:
    """The header that says so goes no further than one hop; the data without it would be altered."""
    one(HEAD + "content-type: application/json\n")
    for coding in ("gzip", "br, gzip", "identity, gzip", "x"):
        with pytest.raises(UnsupportedFormatError, match="content-encoding"):
            decode(*parsed(head + f"content-encoding: {coding}\n", BODY % b""))
    assert one(head + "Content-Encoding: Identity\n", BODY % b"").id == "1"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON",
        "application/cloudevents+json;charset=UTF-8",
        'application/cloudevents+json; charset="utf-8" ',
    ],
)
def test_the_content_type_of_a_structured_event_may_be_spelt_in_many_ways(content_type: str) -> None:
    assert one(f"content-type: {content_type}\n", BODY % b"").id == "1"


def test_a_structured_event_is_what_its_body_says_whatever_the_headers_say() -> None:
    event = one(STRUCTURED + "ce-id: 2\nce-bad_name: x\ntraceparent: 00-1-2-01\n", BODY % b"")
    assert event.id == "1"
    assert event.headers == ((b"traceparent", b"00-1-2-01"),)
    assert b"traceparent: 00-1-2-01\r\n" in event_head(event)


def test_a_batch_is_its_events_in_order() -> None:
    members = [BODY % b',"data":{"n":%d}' % number for number in range(3)]
    found = decode(*parsed(BATCH + "traceparent: x\nknative-eventing-hops: 3\n", b"[" + b", ".join(members) + b"]"))
    assert [event.data for event in found] == [b'{"n":%d}' % number for number in range(3)]
    assert [payload(event) for event in found] == members
    assert {event.headers for event in found} == {((b"traceparent", b"x"),)}
    assert {event.hops for event in found} == {3}
    assert decode(*parsed(BATCH, b"[]")) == []


def test_faults_in_a_batch_say_where() -> None:
    body = b"[" + BODY % b"" + b',{"id":"2"},5,' + BODY % b',"time":"x"' + b"]"
    assert faults(BATCH, body) == ["[1].specversion", "[1].source", "[1].type", "[2]", "[3].time"]
    assert faults(BATCH, b"{}") == [""]


@pytest.mark.parametrize(
    ("value", "hops"),
    [("0", 0), ("7", 7), (" 7 ", 7), ("-1", 0), ("x", 0), ("", 0), ("9" * 40, 999_999), ("7\nknative-eventing-hops: 9", 9)],
)
def test_hops_are_read_and_counted_up(value: str, hops: int) -> None:
    event = one(HEAD + f"knative-eventing-hops: {value}\n")
    if "\n" not in value:
        assert event.hops == hops
        assert b"knative-eventing-hops: %d\r\n" % (hops + 1) in event_head(event)
    assert event_head(event).count(b"hops") == 1


# replies


def test_a_reply_is_read_in_either_mode() -> None:
    binary = decode_reply(*parsed(HEAD, b"x"))
    assert binary is not None
    assert binary.data == b"x"
    structured = decode_reply(*parsed(STRUCTURED.replace("cloudevents", "CloudEvents"), BODY % b',"data":1'))
    assert structured is not None
    assert structured.data == b"1"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("content-type: text/plain\n", b"OK"),
        ("", b""),
        ("ce-id: 1\n", b""),
        (BATCH, b"[]"),
        ("content-type: application/cloudevents+xml\n", b"<x/>"),
    ],
)
def test_what_is_no_event_is_no_reply(head: str, body: bytes) -> None:
    assert decode_reply(*parsed(head, body)) is None


@pytest.mark.parametrize(("head", "body"), [("ce-specversion: 1.0\n", b""), (STRUCTURED, b"{}"), (STRUCTURED, b"OK")])
def test_a_broken_reply_says_what_is_wrong(head: str, body: bytes) -> None:
    with pytest.raises(InvalidEventError):
        decode_reply(*parsed(head, body))


def test_the_head_cannot_be_broken_out_of() -> None:
    """A10: what is in an attribute stays in its line, whoever made the event."""
    event = Event(
        {"specversion": "1.0", "id": "1\r\nhost: evil", "source": "/s", "type": "t", "datacontenttype": "a/b\r\nx: y"}, b""
    )
    lines = binary_head(event).split(b"\r\n")
    assert b"ce-id: 1%0D%0Ahost:%20evil" in lines
    assert b"content-type: a/b  x: y" in lines


@given(st.lists(st.tuples(st.sampled_from(["ce-id", "ce-Type", "ce-x", "content-type", "ce-source", "ce-specversion", "ce-time",
                                           "knative-eventing-hops", "traceparent"]), st.binary(max_size=20))), st.binary(max_size=50))  # fmt: skip
def test_any_headers_and_bytes_give_events_or_their_faults(headers: list[tuple[str, bytes]], body: bytes) -> None:
    names = HeaderNames()
    read = [(names[name.encode()], value.replace(b"\r", b"").replace(b"\n", b"")) for name, value in headers]
    for decoding in (decode, decode_reply):
        try:
            decoding(read, body)
        except InvalidEventError as error:
            assert error.faults


@given(events, st.integers(0, 60), st.sampled_from([(), ((b"traceparent", b"00-x"),)]), st.booleans())
def test_what_an_event_takes_along_stands_in_its_head_once(
    event: Event, hops: int, headers: tuple[tuple[bytes, bytes], ...], made_before: bool
) -> None:
    (taken,) = decode(*through_the_wire(event))
    if made_before:
        event_head(taken)
    take_along(taken, hops, headers)
    assert event_head(taken).endswith(b"\r\ncontent-length: %d\r\n\r\n" % len(payload(taken)))
    (again,) = decode(*through_the_wire(taken))
    assert (again.attributes, again.data, again.hops) == (event.attributes, event.data, hops + 1)
    assert again.headers == event.headers + headers
