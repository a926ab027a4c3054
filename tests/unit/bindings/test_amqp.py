"""The AMQP binding against what Knative's RabbitMQ components and the CloudEvents AMQP binding write."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventing.bindings import http
from eventing.bindings.amqp import decode, encode, foreign_event
from eventing.errors import InvalidEventError
from eventing.event import Event, attribute_faults
from tests.unit.bindings.messages import events, parsed, texts, through_the_wire

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
PLAIN = [(b"specversion", b"1.0"), (b"id", b"1"), (b"source", b"/s"), (b"type", b"t")]
NAMES = [b"id", b"source", b"type", b"specversion", b"x", b"content-type", b"traceparent", b"cloudEvents:id", b"cloudEvents_type"]


def of_http(event: Event) -> Event:
    """The event as it is when it has come by HTTP."""
    (received,) = http.decode(*through_the_wire(event))
    return received


def through(event: Event) -> tuple[Event, bytes]:
    """Stored and read again."""
    return decode(*encode(event, b"first-1"))


@given(events, st.none() | texts)
@example(Event(REQUIRED | {"id": "a%20b", "traceparent": "an attribute"}), "a b")
@example(Event(REQUIRED | {"x" * 256: "a long name"}, b"{}"), None)
@example(Event(REQUIRED | {"type": "größer", "datacontenttype": "a/b; x=%"}, b"x"), "%")
def test_what_is_stored_comes_back(event: Event, partition_key: str | None) -> None:
    """By whatever way the event came: made in the process, or by HTTP."""
    if partition_key is not None:
        event = http.with_attributes(event, {"partitionkey": partition_key})
    for way in (event, of_http(event)):
        read, origin = through(way)
        assert read.attributes == event.attributes
        assert read.data == event.data
        assert read.raw_id == event.id.encode()
        assert dict(read.headers) == dict(event.headers)
        assert read.hops == way.hops
        assert origin == b"first-1"
        # What a subscriber gets says the same as if the event had never been stored.
        sent = of_http(read)
        assert (sent.attributes, sent.data, sent.headers) == (event.attributes, event.data, read.headers)
        assert sent.hops == way.hops + 1


@given(
    st.binary(max_size=8),
    st.lists(st.tuples(st.sampled_from(NAMES) | st.binary(max_size=5), st.binary(max_size=8)), max_size=8),
    st.binary(max_size=8),
)
def test_any_message_is_an_event_or_becomes_one(content_type: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        event, _ = decode(content_type, headers, body)
    except InvalidEventError as error:
        assert error.faults
        event = foreign_event("/queue", content_type, headers, body)
        assert event.data == body
        assert event.id == foreign_event("/queue", content_type, headers, body).id
    assert not attribute_faults(event.attributes)
    assert of_http(event).attributes == event.attributes


def test_attributes_are_headers_under_their_own_names_as_knative_writes_them() -> None:
    event = Event(REQUIRED | {"datacontenttype": "text/plain", "ext": "1"}, b"data", headers=((b"traceparent", b"00-1"),))
    content_type, headers, body = encode(event, b"first-7")
    assert (content_type, body) == (b"text/plain", b"data")
    assert dict(headers) == {
        **dict(PLAIN),
        b"content-type": b"text/plain",
        b"ext": b"1",
        b"traceparent": b"00-1",
        b"eventing-receipt": b"first-7",
    }


@pytest.mark.parametrize("prefix", [b"cloudEvents:", b"cloudEvents_"])
def test_the_prefix_of_the_amqp_binding_is_read_and_what_has_none_is_no_attribute_then(prefix: bytes) -> None:
    headers = [(prefix + name, value) for name, value in PLAIN]
    event, _ = decode(b"text/plain", [*headers, (b"id", b"of the application"), (b"x", b"y"), (b"traceparent", b"00-1")], b"data")
    assert event.attributes == REQUIRED | {"datacontenttype": "text/plain"}
    assert event.headers == ((b"traceparent", b"00-1"),)


def test_the_property_says_the_content_type_where_no_header_does() -> None:
    event, _ = decode(b"text/plain", PLAIN, b"data")
    assert event.attributes["datacontenttype"] == "text/plain"
    event, _ = decode(b"text/plain", [*PLAIN, (b"content-type", b"text/csv")], b"data")
    assert event.attributes["datacontenttype"] == "text/csv"


def test_structured_mode_is_read_from_the_property() -> None:
    event, _ = decode(b"application/cloudevents+json", [(b"x-death", b"1")], json.dumps({**REQUIRED, "data": {"a": 1}}).encode())
    assert event.attributes == REQUIRED
    assert json.loads(event.data) == {"a": 1}


def test_a_structured_event_is_stored_in_binary_mode_where_nothing_is_lost() -> None:
    body = json.dumps({**REQUIRED, "datacontenttype": "application/json", "data": {"a": 1}}).encode()
    (event,) = http.decode(*parsed("content-type: application/cloudevents+json", body))
    content_type, headers, stored = encode(event, b"first-1")
    assert content_type == b"application/json"
    assert json.loads(stored) == {"a": 1}
    assert (b"id", b"1") in headers


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [header for header in PLAIN if header[0] != b"type"],
        [*PLAIN, (b"id", b"2")],
        [*PLAIN, (b"subject", b"\xff")],
    ],
)
def test_what_is_no_event_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidEventError):
        decode(b"", headers, b"{}")


def test_a_foreign_message_becomes_an_event_that_names_it() -> None:
    event = foreign_event(
        "/queue", b"text/plain", [(b"X-Shop", b"berlin"), (b"blob", b"\xff")], b"data", message_id="m-1", timestamp=1
    )
    assert event.attributes == {
        "specversion": "1.0",
        "id": "m-1",
        "source": "/queue",
        "type": "dev.knative.rabbitmq.event",
        "time": "1970-01-01T00:00:01Z",
        "datacontenttype": "text/plain",
        "rabbitmqheaderxshop": "berlin",
        "rabbitmqheaderblob": "/w==",
    }


def test_a_structured_event_that_is_none_is_not_handed_on_as_one() -> None:
    """Its content type would make the subscriber look for the event in the data."""
    event = foreign_event("/queue", b"application/cloudevents+json; charset=utf-8", [], b"{}")
    assert "datacontenttype" not in event.attributes
    assert event.attributes["rabbitmqheadercontenttype"] == "application/cloudevents+json; charset=utf-8"
