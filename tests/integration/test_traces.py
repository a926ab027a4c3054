"""Trace context through the mesh, with and without spans, and the spans as a real collector receives them."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from eventing.bindings.http import event_head
from eventing.observe.traces import Tracing, tracing
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Answer, Received, Sink
from tests.support.collector import Collector, ReceivedSpan
from tests.support.data_plane import Client, DataPlaneRig, make_event, subscriber
from tests.support.manifests import CHANNEL, subscription
from tests.support.waiting import eventually

DOCS = Path(__file__).resolve().parents[2] / "docs" / "traces.md"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"
REPLY = {"specversion": "1.0", "id": "r", "source": "/replier", "type": "com.example.reply"}


async def post(mesh: DataPlaneRig, *headers: tuple[str, str], channel: str = "orders", id_: str = "1") -> None:
    event = make_event(id_)
    event.headers = tuple((name.encode(), value.encode()) for name, value in headers)
    assert (await mesh.publish(event, channel)).status == 202


def trace_of(request: Received) -> tuple[str, str]:
    version, trace, span, flags = (request.header("traceparent") or "---").split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)
    assert flags in {"00", "01"}
    return trace, span


@pytest.mark.parametrize("parent", [VALID, "cc-future", "not valid at all"])
async def test_without_spans_the_context_goes_through_as_it_came(parent: str) -> None:
    """Also where it is not valid: the mesh takes no part in the trace, so it judges nothing (W3C, forwarding)."""
    async with Sink() as sink, DataPlaneRig() as mesh:
        sink.script("/s", Answer(503))
        sink.always("/s", Answer(500))
        mesh.channel("orders", subscriber("s", sink.url + "/s", retry=1, backoff_delay="PT0.01S", dead_letter=sink.url + "/dead"))
        await post(mesh, ("traceparent", parent), ("tracestate", "congo=t61rcWkgMzE"))
        for request in [*await sink.received(2, "/s"), *await sink.received(1, "/dead")]:
            assert request.header("traceparent") == parent
            assert request.header("tracestate") == "congo=t61rcWkgMzE"


async def test_without_spans_a_reply_belongs_to_the_trace_of_its_event() -> None:
    async with Sink() as sink, DataPlaneRig() as mesh:
        sink.script("/s", Answer.reply(REPLY), Answer.reply(REPLY))
        mesh.channel("orders", subscriber("s", sink.url + "/s", reply=sink.url + "/reply"))
        await post(mesh, ("traceparent", VALID), ("tracestate", "a=1"))
        (reply,) = await sink.received(1, "/reply")
        assert (reply.header("traceparent"), reply.header("tracestate")) == (VALID, "a=1")
        await post(mesh, id_="2")
        replies = await sink.received(2, "/reply")
        assert replies[1].header("traceparent") is None


async def test_a_reply_that_brings_a_context_keeps_it() -> None:
    other = VALID.replace("4bf9", "5bf9")
    async with Sink() as sink, DataPlaneRig() as mesh:
        answer = Answer.reply(REPLY)
        sink.script("/s", Answer(200, (*answer.headers, ("traceparent", other)), answer.body))
        mesh.channel("orders", subscriber("s", sink.url + "/s", reply=sink.url + "/reply"))
        await post(mesh, ("traceparent", VALID))
        (reply,) = await sink.received(1, "/reply")
        assert reply.header("traceparent") == other


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as receiving:
        for name, value in receiving.environ.items():
            monkeypatch.setenv(name, value)
        yield receiving


@pytest.fixture
def spans(collector: Collector) -> Iterator[Tracing]:
    made = tracing("dataplane")
    assert made is not None
    yield made
    made.close(5.0)


async def received(collector: Collector, number: int, name: str) -> list[ReceivedSpan]:
    return await asyncio.to_thread(collector.wait, number, lambda span: span.name == name)


async def test_a_span_per_acceptance_and_per_attempt(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        sink.script("/a", Answer(503), Answer(500))
        mesh.channel(
            "orders",
            subscriber("a", sink.url + "/a?key=secret", retry=3, backoff_delay="PT0.01S"),
            subscriber("b", sink.url + "/b"),
        )
        receipt = await mesh.accepted(make_event("7", subject="shoes"))
        attempts, (other,) = await sink.received(3, "/a"), await sink.received(1, "/b")
        await mesh.quiet()

        (acceptance,) = await received(collector, 1, "receive")
        assert (acceptance.kind, acceptance.parent, acceptance.error) == ("server", "", False)
        assert acceptance.service == "eventing-dataplane"
        assert (
            acceptance.attributes.items()
            >= {
                "http.request.method": "POST",
                "http.response.status_code": 202,
                "url.path": "/default/orders",
                "messaging.destination.name": "channel:orders.default",
                "kn.channel.name": "orders",
                "kn.channel.namespace": "default",
                "cloudevents.event_id": "7",
                "cloudevents.event_source": "/shop",
                "cloudevents.event_type": "com.example.order",
                "cloudevents.event_spec_version": "1.0",
                "cloudevents.event_subject": "shoes",
                "eventing.receipt": receipt,
            }.items()
        )

        sent = await received(collector, 4, "send")
        assert {(span.trace, span.parent, span.kind) for span in sent} == {(acceptance.trace, acceptance.id, "client")}
        to_a = [span for span in sent if span.attributes["messaging.destination.name"] == "subscription:a.default"]
        (to_b,) = [span for span in sent if span not in to_a]
        # What each request carried is the span of its own attempt.
        assert [trace_of(request) for request in attempts] == [(span.trace, span.id) for span in to_a]
        assert trace_of(other) == (to_b.trace, to_b.id)
        assert [span.attributes["http.response.status_code"] for span in to_a] == [503, 500, 200]
        assert [span.attributes.get("error.type") for span in to_a] == ["503", "500", None]
        assert [span.error for span in to_a] == [True, True, False]
        assert [span.attributes.get("http.request.resend_count") for span in to_a] == [None, 1, 2]
        assert [span.attributes["eventing.attempt"] for span in to_a] == [1, 2, 3]
        assert all(span.start <= span.end for span in to_a)
        assert all("secret" not in str(span) for span in collector.spans)
        documented = await asyncio.to_thread(DOCS.read_text)
        assert [name for span in collector.spans for name in span.attributes if f"`{name}`" not in documented] == []


async def test_what_came_is_the_parent_and_its_state_goes_on(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        await post(mesh, ("traceparent", VALID), ("tracestate", "congo=t61rcWkgMzE"))
        (request,) = await sink.received(1)
        (acceptance,) = await received(collector, 1, "receive")
        assert (acceptance.trace, acceptance.parent, acceptance.state) == (TRACE, SPAN, "congo=t61rcWkgMzE")
        (attempt,) = await received(collector, 1, "send")
        assert trace_of(request) == (TRACE, attempt.id)
        assert attempt.id not in {SPAN, acceptance.id}
        assert request.header("tracestate") == "congo=t61rcWkgMzE"


@pytest.mark.parametrize("parent", ["00-1-2-01", VALID.upper(), f"00-{TRACE}-{'0' * 16}-01"])
async def test_an_invalid_context_is_replaced_by_a_new_one(collector: Collector, spans: Tracing, parent: str) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        await post(mesh, ("traceparent", parent), ("tracestate", "congo=t61rcWkgMzE"))
        (request,) = await sink.received(1)
        (acceptance,) = await received(collector, 1, "receive")
        assert acceptance.parent == ""
        assert trace_of(request)[0] == acceptance.trace != TRACE
        assert request.header("tracestate") is None


async def test_the_extension_of_an_event_is_the_parent_where_http_says_nothing(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        await mesh.accepted(make_event(traceparent=VALID))
        (request,) = await sink.received(1)
        assert request.header("ce-traceparent") == VALID  # attributes are never altered
        assert trace_of(request)[0] == TRACE


async def test_what_is_not_sampled_is_passed_on_and_not_exported(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        await post(mesh, ("traceparent", VALID[:-2] + "00"))
        (request,) = await sink.received(1)
        assert (request.header("traceparent") or "").endswith("-00")
        assert trace_of(request)[0] == TRACE
        await post(mesh, id_="2")
        await received(collector, 1, "send")
        assert TRACE not in {span.trace for span in collector.spans}


async def test_structured_events_and_batches_have_spans_too(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        one = b'{"specversion":"1.0","type":"t","source":"/s","id":"%d","data":1}'
        for kind, body in (("cloudevents", one % 1), ("cloudevents-batch", b"[" + one % 2 + b"," + one % 3 + b"]")):
            answer = await mesh.client.request(
                "POST", "/default/orders", f"content-type: application/{kind}+json\ntraceparent: {VALID}", body
            )
            assert answer.status == 202
        requests = await sink.received(3)
        assert {trace_of(request)[0] for request in requests} == {TRACE}
        assert len({trace_of(request)[1] for request in requests}) == 3
        acceptances = await received(collector, 2, "receive")
        assert acceptances[1].attributes["messaging.batch.message_count"] == 2


async def test_replies_and_dead_letters_stay_in_the_trace(collector: Collector, spans: Tracing) -> None:
    async with Sink() as sink, DataPlaneRig(tracing=spans) as mesh:
        sink.always("/replies", Answer.reply(REPLY))
        sink.always("/fails", Answer(400))
        sink.script("/dead", Answer(503))
        mesh.channel(
            "orders",
            subscriber("a", sink.url + "/replies", reply=sink.url + "/reply"),
            subscriber("b", sink.url + "/fails", dead_letter=sink.url + "/dead", retry=1, backoff_delay="PT0.01S"),
        )
        await post(mesh, ("traceparent", VALID), ("tracestate", "a=1"))
        (reply,), letters = await sink.received(1, "/reply"), await sink.received(2, "/dead")
        await mesh.quiet()
        (acceptance,), sent = await received(collector, 1, "receive"), await received(collector, 2, "send")
        answered = next(span for span in sent if span.attributes["messaging.destination.name"] == "subscription:a.default")
        (replied,), buried = await received(collector, 1, "reply"), await received(collector, 2, "dead-letter")
        assert trace_of(reply) == (TRACE, replied.id)
        assert replied.parent == answered.id
        assert replied.attributes["cloudevents.event_id"] == "r"
        assert [trace_of(letter) for letter in letters] == [(TRACE, span.id) for span in buried]
        assert {span.parent for span in buried} == {acceptance.id}
        assert [span.error for span in buried] == [True, False]
        assert {request.header("tracestate") for request in (reply, *letters)} == {"a=1"}


async def test_an_attempt_without_a_connection_has_a_span(collector: Collector, spans: Tracing) -> None:
    async with DataPlaneRig(tracing=spans) as mesh:
        mesh.channel("orders", subscriber("s", "http://127.0.0.1:1/", retry=1, backoff_delay="PT0.01S"))
        receipt = await mesh.accepted(make_event())
        await mesh.ended(receipt)
        sent = await received(collector, 2, "send")
        assert [span.attributes["error.type"] for span in sent] == ["ConnectFailed"] * 2
        assert all(span.error for span in sent)


async def test_refused_requests_have_spans_that_say_why(collector: Collector, spans: Tracing) -> None:
    async with DataPlaneRig(tracing=spans) as mesh:
        assert (await mesh.publish(make_event(), "nowhere")).status == 404
        (refused,) = await received(collector, 1, "receive")
        assert refused.attributes["http.response.status_code"] == 404
        assert not refused.error  # OpenTelemetry: 4xx is no error of the server
        assert not mesh.server.application._spans  # type: ignore[attr-defined]


async def test_spans_of_several_processes_can_be_told_apart(collector: Collector) -> None:
    for number in range(2):
        made = tracing("dataplane", f"embedded-{number}")
        assert made is not None
        async with DataPlaneRig(tracing=made) as mesh:
            mesh.channel("orders")
            await mesh.accepted(make_event())
        await asyncio.to_thread(made.close, 5.0)
    found = await received(collector, 2, "receive")
    assert {(span.service, span.instance) for span in found} == {
        ("eventing-dataplane", f"embedded-{number}") for number in range(2)
    }


@pytest.mark.parametrize("away", ["nobody listens", "it refuses"])
async def test_a_collector_that_is_away_costs_spans_and_nothing_else(
    collector: Collector, away: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if away == "nobody listens":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    collector.refusing = True
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "50")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    made = tracing("dataplane")
    assert made is not None
    async with Sink() as sink, DataPlaneRig(tracing=made) as mesh:
        mesh.channel("orders", subscriber("s", sink.url))
        for number in range(300):
            await mesh.accepted(make_event(str(number)))
        await sink.received(300, within=20.0)
        await mesh.quiet()
        assert len(made._export._queue) <= 50
    with caplog.at_level(logging.WARNING):
        await asyncio.to_thread(made.close, 1.0)
    counts = made.counts
    assert counts["exported"] == 0
    assert counts["failed"] + counts["dropped"] + 60 >= 600  # but for those that were under way or waiting at the end
    said = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert not said


async def test_an_outage_of_the_collector_is_said_once_and_its_end_too(
    collector: Collector, spans: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    def attempt() -> None:
        spans.begin("send", "client", None, {}).end(200)

    caplog.set_level(logging.INFO, "eventing")
    collector.refusing = True
    for number in range(1, 4):
        attempt()
        await asyncio.to_thread(eventually, lambda number=number: spans.counts["failed"] >= number, "a failed export")
    assert spans.fault
    collector.refusing = False
    attempt()
    await received(collector, 1, "send")
    await asyncio.to_thread(eventually, lambda: not spans.fault, "the end of the outage")
    said = [record.getMessage() for record in caplog.records if record.name == "eventing.observe.traces"]
    assert said == ["spans could not be exported and are lost; events are not", "spans are exported again"]


def test_a_data_plane_without_spans_loads_nothing_of_opentelemetry() -> None:
    code = "import eventing.runtime.data_plane, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_loaded_where_nothing_is_asked_for(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    before = threading.active_count()
    assert tracing("dataplane") is None
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("environ", "missing", "said"),
    [
        ({}, "opentelemetry.exporter.otlp.proto.http.trace_exporter", "pip install 'eventing-mesh[otel]'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", "OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf here"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "", "OTEL_TRACES_EXPORTER can be otlp or none here"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(
    environ: dict[str, str], missing: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    assert tracing("dataplane") is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()


async def test_a_mesh_with_the_standard_variables_sends_spans(collector: Collector, tmp_path: Path) -> None:
    manifest = tmp_path / "orders.yaml"
    async with Sink() as sink:
        manifest.write_text(f"{CHANNEL}---\n{subscription(sink.url)}")
        async with Mesh(tmp_path / "data", manifests=[str(manifest)]) as mesh:
            producer = Client(urlsplit(mesh.ingress_url).port or 0)
            event = make_event()
            async with asyncio.timeout(20):  # the channel comes a moment after the mesh
                while (await producer.request("POST", "/default/orders", event_head(event), event.data)).status != 202:
                    await asyncio.sleep(0.02)
            await producer.aclose()
            await received(collector, 1, "receive")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{mesh.metrics_url}/metrics") as metrics:
                    assert 'eventing_trace_spans_total{outcome="exported"}' in await metrics.text()
                async with session.get(f"{mesh.metrics_url}/readyz?verbose") as ready:
                    assert "[+]spans ok" in await ready.text()
