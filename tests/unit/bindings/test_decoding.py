"""Properties of the decoder as a whole: what is encoded is decoded again, what is damaged is refused, nothing is altered."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings import http
from eventing.bindings.http import HeaderName, HeaderNames, decode, in_format
from eventing.bindings.json_format import encode_structured
from eventing.errors import InvalidEventError
from eventing.event import Event
from tests.unit.bindings.messages import events, parsed, through_the_wire

BATCH = "content-type: application/cloudevents-batch+json\n"
STRUCTURED = "content-type: application/cloudevents+json\n"


def meaning(event: Event) -> tuple[dict[str, str], bytes, Any]:
    return event.attributes, event.data, event.headers


@given(st.lists(events, max_size=5))
def test_a_batch_is_decoded_as_its_events(batch: list[Event]) -> None:
    """decode(encode(e)) == e, for each of them: in binary mode, in structured mode, and in the batch."""
    structured = [encode_structured(event) for event in batch]
    found = decode(*parsed(BATCH, b"[" + b",".join(structured) + b"]"))
    assert [event.structured for event in found] == structured
    for event, in_batch, body in zip(batch, found, structured, strict=True):
        (binary,) = decode(*through_the_wire(event))
        (alone,) = decode(*parsed(STRUCTURED, body))
        assert in_batch.attributes == alone.attributes == binary.attributes == event.attributes
        assert binary.data == event.data
        # White space around a JSON value belongs to nobody; in structured mode it is not kept.
        assert in_batch.data == alone.data
        assert alone.data in {event.data, event.data.strip()}


# Lines as a parser lets them through: no control characters in values, white space behind them at most.
_values = st.one_of(
    st.sampled_from(
        [b"1", b"1.0", b"0.3", b"2.0", b"/s", b"a b", b"a%20b", b'"a"', b"a ", b"a\t", b"", b"\xc3\xa4", b"\xff", b"text/plain", b"application/json",
         b"application/cloudevents+json", b"application/cloudevents+xml", b"2026-01-31T12:00:00Z", b"2026-13-01T00:00:00Z", b"gzip", b"identity", b"7"]
    ),
    st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F).lstrip(b" ")),
)  # fmt: skip
_names = st.sampled_from(
    [b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"CE-Id", b"ce-time", b"ce-subject", b"ce-ext", b"ce-a_b", b"ce-", b"content-type",
     b"content-encoding", b"traceparent", b"knative-x", b"knative-eventing-hops", b"x-request-id", b"authorization"]
)  # fmt: skip
_good = [
    (b"ce-id", b"1"),
    (b"ce-source", b"/s"),
    (b"ce-type", b"t"),
    (b"ce-specversion", b"1.0"),
    (b"content-type", b"text/plain"),
]


def outcome(read: list[tuple[HeaderName, bytes]], body: bytes, how: Any) -> Any:
    try:
        return [(*meaning(event), event.hops, event.raw_id, http.event_head(event)) for event in how(read, body)]
    except InvalidEventError as error:
        assert error.faults
        return type(error), error.faults


@given(st.lists(st.tuples(_names, _values), max_size=4), st.permutations(_good), st.binary(max_size=20))
def test_the_quick_way_and_the_thorough_one_judge_alike(
    more: list[tuple[bytes, bytes]], good: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """`decode` leaves out what it need not look at; that must never be seen. Good values are known by then."""
    names = HeaderNames()
    decode([(names[name], value) for name, value in good], body)
    read = [(names[name], value) for name, value in good[: 5 - len(more) // 3] + more]
    quick = outcome(read, body, decode)
    thorough = outcome(read, body, http._decode_thoroughly)
    if isinstance(quick, list) and isinstance(thorough, list):
        # The lines of the head may be written in another way; what they say may not differ.
        heads = [http.decode(*parsed(head, data)) for ((_, data, _, _, _, head),) in (quick, thorough)]
        assert meaning(heads[0][0]) == meaning(heads[1][0])
        assert quick[0][:-1] == thorough[0][:-1]
    else:
        assert quick == thorough


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    body = b"[" + b",".join(encode_structured(event) for event in draw(st.lists(events, min_size=1, max_size=2))) + b"]"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 8)))
        put = draw(
            st.sampled_from(
                [b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"1e999", b"\\u0000", b"\\ud800", b"\xff", b"\\"]
            )
            | st.binary(max_size=2)
        )
        body = body[:at] + put + body[to:]
    return body


@given(_damaged())
def test_what_is_damaged_is_refused_or_stays_what_it_then_is(body: bytes) -> None:
    try:
        found = decode(*parsed(BATCH, body))
    except InvalidEventError as error:
        assert error.faults
        return
    for event in found:
        assert event.structured is not None
        assert event.structured in body, "its bytes are those that came"
        (again,) = decode(*through_the_wire(event))
        assert (again.attributes, again.data, again.structured) == (event.attributes, event.data, event.structured)
        (binary,) = decode(*through_the_wire(in_format(event, "binary")))
        assert (binary.attributes, binary.data) == (event.attributes, event.data)
        (back,) = decode(*through_the_wire(in_format(binary, "json")))
        assert back.attributes == event.attributes
        assert back.data in {event.data, event.data.strip()}
