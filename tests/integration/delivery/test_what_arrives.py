"""What a subscriber gets: the event, the headers beside it, the content mode. In virtual time."""

import json

import pytest

from eventing.bindings.http import in_format
from eventing.testing.sinks import Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import run


def test_what_a_subscriber_gets() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/a?b=c"))
        event = make_event("a b", b'{ "n": 1 }', subject="ü", partitionkey="k", traceparent="00-a-b-01")
        event.headers = ((b"traceparent", b"00-1-2-01"), (b"x-request-id", b"r"), (b"knative-x", b"y"), (b"x-b3-traceid", b"z"))
        receipt = await mesh.accepted(event)
        (received,) = await sink.received(1)
        assert (received.method, received.target, received.body) == ("POST", "/a?b=c", b'{ "n": 1 }')
        assert received.attributes == {
            "specversion": "1.0", "id": "a%20b", "source": "/shop", "type": "com.example.order", "subject": "%C3%BC",
            "partitionkey": "k", "traceparent": "00-a-b-01",
        }  # fmt: skip
        wanted = {
            "content-type": "application/json", "prefer": "reply", "kn-namespace": "default", "traceparent": "00-1-2-01",
            "x-request-id": "r", "knative-x": "y", "x-b3-traceid": "z", "knative-eventing-hops": "2", "content-length": "10",
        }  # fmt: skip
        assert {name: received.header(name) for name in wanted} == wanted
        assert await mesh.ended(receipt) == ("delivered", "")

    run(test)


@pytest.mark.parametrize("format_", ["", "json", "binary"])
@pytest.mark.parametrize("sent", ["json", "binary"])
def test_the_content_mode_is_kept_or_forced(format_: str, sent: str) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", **({"format": format_} if format_ else {})))
        await mesh.accepted(in_format(make_event(), sent))
        (received,) = await sink.received(1)
        structured = (format_ or sent) == "json"
        assert ((received.header("content-type") or "").startswith("application/cloudevents+json")) == structured
        assert received.event_id == "1"
        assert (json.loads(received.body)["data"] if structured else json.loads(received.body)) == {"n": 1}

    run(test)
