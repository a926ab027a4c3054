"""The Kafka binding against what the CloudEvents specification and Knative say."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventing.bindings import http
from eventing.bindings.http import event_head, payload
from eventing.bindings.kafka import decode, encode, foreign_event
from eventing.errors import InvalidEventError
from eventing.event import Event, attribute_faults
from tests.unit.bindings.messages import events, parsed, texts, through_the_wire

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
PLAIN = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t")]


def of_http(event: Event) -> Event:
    """The event as it is when it has come by HTTP."""
    (received,) = http.decode(*through_the_wire(event))
    return received


def through(event: Event) -> tuple[bytes | None, Event, bytes]:
    """Stored and read again."""
    key, value, headers = encode(event, b"first-1")
    read, origin = decode(value, headers)
    return key, read, origin


@given(events, st.none() | texts)
@example(Event(REQUIRED | {"id": "a%20b"}), "a b")
@example(Event(REQUIRED | {"id": '"a"'}), None)
@example(Event(REQUIRED | {"source": "%41b"}), None)
@example(Event(REQUIRED | {"type": "größer", "datacontenttype": "a/b; x=%"}, b"x"), "%")
def test_what_is_stored_comes_back(event: Event, partition_key: str | None) -> None:
    """By whatever way the event came: made in the process, or by HTTP."""
    if partition_key is not None:
        event = http.with_attributes(event, {"partitionkey": partition_key})
    for way in (event, of_http(event), event):  # what is known of its values after the first time changes nothing
        key, read, origin = through(way)
        assert read.attributes == event.attributes
        assert read.data == event.data
        assert read.raw_id == event.id.encode()
        assert dict(read.headers) == dict(event.headers)
        assert read.hops == way.hops
        assert origin == b"first-1"
        assert key == (partition_key.encode() if partition_key else None)
        # What a subscriber gets says the same as if the event had never been stored.
        sent = of_http(read)
        assert sent.attributes == event.attributes
        assert sent.data == event.data
        assert sent.headers == read.headers
        assert sent.hops == way.hops + 1


@given(
    st.dictionaries(
        st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_x", "content-type", "traceparent"]), st.binary(max_size=8)
    )
)
@example({"ce_id": b"1\r\nce-type: forged"})
@example({"ce_x": b"a\r\n\r\nsmuggled"})
@example({"traceparent": b"00\r\nhost: elsewhere"})
@example({"knative-x\r\nhost: elsewhere": b"x"})
@example({"ce_x\r\nhost": b"x"})
@example({"knative-ü": b"x", "tracestate": b"\xff"})
def test_nothing_breaks_out_of_the_head(given_headers: dict[str, bytes]) -> None:
    """A foreign producer's values are never checked by a parser of HTTP."""
    headers = list((dict(PLAIN) | given_headers).items())
    try:
        event, _ = decode(b"data", headers)
    except InvalidEventError:
        return
    head = event_head(event)
    lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert len(lines) - 2 <= len(headers) + 2
    for line in lines[:-2]:
        name, separator, value = line.partition(b": ")
        assert separator
        assert name == name.lower()
        assert all(0x20 <= byte < 0x7F for byte in value)


def test_the_well_known_attributes_have_the_names_of_the_specification() -> None:
    event = Event(REQUIRED | {"datacontenttype": "application/json", "partitionkey": "k", "subject": "ü"}, b"{}")
    key, value, headers = encode(event, b"first-9")
    assert (key, value) == (b"k", b"{}")
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/s",
        "ce_type": b"t",
        "content-type": b"application/json",
        "ce_partitionkey": b"k",
        "ce_subject": "ü".encode(),
        "eventing-receipt": b"first-9",
    }


def test_an_event_comes_ready_to_be_sent() -> None:
    decode(b"{}", PLAIN)  # its values are known from now on
    event, origin = decode(b"{}", [*PLAIN, ("knative-eventing-hops", b"3")])
    assert event.attributes == REQUIRED
    assert event.wire is not None
    assert event.wire.endswith(b"knative-eventing-hops: 4\r\ncontent-length: 2\r\n\r\n")
    assert (event.hops, origin) == (3, b"")


@pytest.mark.parametrize("data", [{"a": 1}, None], ids=["data", "no data"])
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
def test_structured_events_are_stored_so_that_nothing_is_lost(data: object, typed: bool) -> None:
    members = REQUIRED | ({"datacontenttype": "application/json"} if typed else {}) | ({"data": data} if data else {})
    body = json.dumps(members | {"n": 5}).encode()
    (event,) = http.decode(*parsed("content-type: application/cloudevents+json\ntraceparent: 00-1-2-01", body))
    _, value, headers = encode(event, b"first-1")
    _, read, _ = through(event)
    assert read.attributes == event.attributes
    assert read.data == event.data
    assert read.headers == event.headers
    if typed or not data:
        assert value == event.data
        assert dict(headers)["ce_n"] == b"5"
    else:
        assert value == body, "untyped data is JSON in a structured event, and unknown in a binary one"
        assert read.structured == body
        assert b"application/cloudevents+json" in event_head(read)


def test_foreign_structured_events_are_read_and_kept() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}'
    event, _ = decode(body, [("content-type", b"application/cloudevents+json; charset=UTF-8")])
    assert (event.id, event.data, event.structured) == ("1", b'{"a":1}', body)
    assert payload(event) == body


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"plain", []),
        (None, []),
        (b"x", [("content-type", b"text/plain")]),
        (b"x", PLAIN[1:]),
        (b"x", [*PLAIN, ("ce_id", b"2")]),
        (b"x", [*PLAIN, ("ce_time", b"yesterday")]),
        (b"x", [*PLAIN, ("ce_x", b"\xff")]),
        (b"x", [*PLAIN, ("ce_datacontenttype", b"text/plain")]),
        (b"[]", [("content-type", b"application/cloudevents-batch+json")]),
        (b"{", [("content-type", b"application/cloudevents+json")]),
        (b"x", [("ce_specversion", b"2.0"), *PLAIN[1:]]),
        (b"x", [("ce_specversion", None), *PLAIN[1:]]),
    ],
)
def test_what_is_no_event_is_said_to_be_none(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    for _ in range(2):  # whatever is remembered of the first must not let the second through
        with pytest.raises(InvalidEventError):
            decode(value, headers)


@given(
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=10)), max_size=4),
    st.integers(-1, 2**41),
)
def test_every_foreign_record_becomes_an_event(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp: int
) -> None:
    event = foreign_event("/kafka#t", 3, 7, timestamp, key, value, headers)
    assert not attribute_faults(event.attributes)
    assert event.id == "partition:3/offset:7"
    assert event.type == "dev.knative.kafka.event"
    assert event.data == (value or b"")
    assert event_head(event).endswith(b"\r\n\r\n")


def test_a_foreign_record_is_told_of_as_knatives_source_tells() -> None:
    event = foreign_event(
        "/kafka#t", 0, 5, 1_700_000_000_123, b"k1", b"text", [("My-Header", b"v"), ("content-type", b"text/plain")]
    )
    assert event.attributes == {
        "specversion": "1.0",
        "id": "partition:0/offset:5",
        "source": "/kafka#t",
        "type": "dev.knative.kafka.event",
        "subject": "partition:0#5",
        "time": "2023-11-14T22:13:20.123Z",
        "key": "k1",
        "partitionkey": "k1",
        "kafkaheadermyheader": "v",
        "datacontenttype": "text/plain",
    }


def test_a_structured_event_that_is_none_is_not_handed_on_as_one() -> None:
    """Its content type would make the subscriber look for the event in the data."""
    event = foreign_event("/kafka#t", 0, 5, -1, None, b"{}", [("content-type", b"application/cloudevents+json; charset=utf-8")])
    assert b"\r\ncontent-type" not in event_head(event).lower()
    assert event.attributes["kafkaheadercontenttype"] == "application/cloudevents+json; charset=utf-8"
