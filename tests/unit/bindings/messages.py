"""HTTP messages taken apart by the parser that the mesh uses, and events for hypothesis to vary."""

from typing import Any

import httptools
from hypothesis import strategies as st

from eventing.bindings.http import HeaderName, HeaderNames, event_head, payload
from eventing.event import Event

__all__ = ["attributes", "content_types", "events", "parsed", "texts", "through_the_wire"]

NAMES = HeaderNames()


class _Message:
    def __init__(self) -> None:
        self.headers: list[tuple[HeaderName, bytes]] = []
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        header = NAMES[name]
        if header.kept:
            self.headers.append((header, value))

    def on_body(self, body: bytes) -> None:
        self.body += body


def parsed(head: str | bytes, body: bytes = b"") -> tuple[list[tuple[HeaderName, bytes]], bytes]:
    """Headers and body of a request with these header lines (`\\n` between them), as the server hands them over."""
    if isinstance(head, str):
        lines = [line for line in head.encode().split(b"\n") if line]
        head = b"\r\n".join([*lines, b"content-length: %d\r\n\r\n" % len(body)])
    message = _Message()
    parser = httptools.HttpRequestParser(message)
    parser.feed_data(b"POST / HTTP/1.1\r\nhost: x\r\n" + head + body)
    return message.headers, message.body


def through_the_wire(event: Event) -> tuple[list[tuple[HeaderName, bytes]], bytes]:
    return parsed(event_head(event), payload(event))


# CloudEvents 1.0 "String": no controls, surrogates, noncharacters.
_CHARACTERS: st.SearchStrategy[Any] = st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufffe\uffff")
texts = st.text(_CHARACTERS, min_size=1, max_size=40)
content_types = st.sampled_from(
    ["application/json", "text/plain", "application/octet-stream", "application/vnd.x+json; a=b", 'text/csv; charset="utf-8"']
)
_sources = st.sampled_from(["/shop", "https://example.com/a?b=c#d", "urn:x:y", "/käse", "%41b"])
_extensions = st.dictionaries(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=5, max_size=20), texts, max_size=4)


@st.composite
def attributes(draw: st.DrawFn) -> dict[str, str]:
    found = draw(_extensions.map(lambda names: {f"ext{name}": value for name, value in names.items()}))
    found |= {"specversion": draw(st.sampled_from(["1.0", "0.3"])), "source": draw(_sources)}
    found |= {"id": draw(texts), "type": draw(texts)}
    for name, strategy in (
        ("subject", texts),
        ("datacontenttype", content_types),
        ("time", st.sampled_from(["2026-01-31T12:00:00Z", "1985-04-12T23:20:50.52+01:00"])),
    ):
        if draw(st.booleans()):
            found[name] = draw(strategy)
    return found


events = st.builds(
    Event,
    attributes(),
    st.one_of(
        st.binary(max_size=200), st.sampled_from([b'{"n": 1}', b"[1,2]", b'"x"', b"null", b" 5 ", b'{"a":"\xff"}', b"\x00"])
    ),
    headers=st.sampled_from([(), ((b"traceparent", b"00-1-2-01"),), ((b"knative-x", b"y"), (b"x-b3-traceid", b"1"))]),
    hops=st.integers(0, 60),
)
