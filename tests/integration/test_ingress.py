"""The ingress from outside: one table of requests and their answers, over real sockets against a data plane."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from eventing.bindings.http import event_head, payload
from eventing.journal.story import story
from eventing.testing.sinks import Answer, Sink
from eventing.wire.server import ServerLimits
from tests.support.data_plane import DataPlaneRig, make_event, subscriber

PATH = "/default/orders"
HOST = "orders-kn-channel.default"
EVENT = "ce-specversion: 1.0\nce-id: 1\nce-source: /shop\nce-type: t\n"
STRUCTURED = "content-type: application/cloudevents+json"
BATCH = "content-type: application/cloudevents-batch+json"
JSON = b'{"specversion":"1.0","id":"%b","source":"/s","type":"t","data":{"n":1}}'
SMALL = ServerLimits(body_bytes=20_000)


class Case(NamedTuple):
    """A request and its answer. `names`: what the problem says, either a part of its detail or the attributes at fault."""

    name: str
    status: int
    names: str | list[str] = ""
    head: str = EVENT
    body: bytes = b"{}"
    method: str = "POST"
    target: str = PATH
    host: str = "localhost"


TABLE = [
    # what is an event
    Case("binary", 202),
    Case("binary, 0.3", 202, head=EVENT.replace("1.0", "0.3")),
    Case("binary, without data", 202, body=b""),
    Case("binary, any data", 202, head=EVENT + "content-type: image/png", body=bytes(range(256))),
    Case("binary, names in any case", 202, head=EVENT.upper().replace("T\n", "t\n")),
    Case("structured", 202, head=STRUCTURED, body=JSON % b"1"),
    Case("structured, 0.3", 202, head=STRUCTURED + "; charset=UTF-8", body=(JSON % b"1").replace(b"1.0", b"0.3")),
    Case("batch", 202, head=BATCH, body=b"[" + JSON % b"1" + b"," + JSON % b"2" + b"]"),
    Case("batch, empty", 202, head=BATCH, body=b"[]"),
    # which channel
    Case("trailing slash", 202, target=PATH + "/"),
    Case("query", 202, target=PATH + "?a=b"),
    Case("absolute form", 202, target="http://localhost" + PATH),
    Case("host form", 202, target="/", host=HOST + ".svc.cluster.local"),
    Case("host form with a port", 202, target="/", host="Orders-kn-channel.default:8080"),
    Case("host form, query", 202, target="/?x", host=HOST + " "),
    Case("host form, absolute", 202, target=f"http://{HOST}/", host=HOST),
    Case("the host of the absolute form counts", 202, target=f"http://{HOST}", host="nope-kn-channel.default"),
    Case("the host of the absolute form counts, unknown", 404, "no channel", target="http://nope-kn-channel.default/", host=HOST),
    Case("unknown channel", 404, "/NAMESPACE/NAME", target="/default/nope"),
    Case("unknown namespace", 404, "no channel", target="/other/orders"),
    Case("unknown channel, host form", 404, "no channel", target="/", host="nope-kn-channel.default.svc"),
    Case("no path", 404, "no channel", target="/"),
    Case("a longer path", 404, "no channel", target=PATH + "/x"),
    Case("a double slash", 404, "no channel", target="//default/orders"),
    Case("an escaped slash", 404, "no channel", target="/default%2forders"),
    Case("dots", 404, "no channel", target="/default/x/../orders"),
    Case("asterisk", 404, "no channel", method="OPTIONS", target="*"),
    Case("host form with a path", 400, "the path must be /", host=HOST + ".svc"),
    Case("no host in Host", 400, "Host header", host="a b"),
    Case("a path in Host", 400, "Host header", host="localhost/x"),
    Case("a user in Host", 400, "Host header", host="user@localhost"),
    Case("a user in the target", 400, "Host header", target="http://user@localhost" + PATH),
    # which method
    Case("GET", 405, "GET", method="GET"),
    Case("PUT", 405, "PUT", method="PUT"),
    Case("DELETE", 405, "DELETE", method="DELETE", head="", body=b""),
    Case("HEAD", 405, method="HEAD", head="", body=b""),
    Case("a method that nobody knows", 405, "POST, OPTIONS", method="FROB"),
    Case("CONNECT", 405, "CONNECT", method="CONNECT", target="x:1"),
    Case("PATCH of an unknown channel", 404, "no channel", method="PATCH", target="/default/nope"),
    # what is wrong with it
    Case("no event at all", 400, ["ce-specversion", "ce-id", "ce-source", "ce-type"], head="content-type: application/json"),
    Case("everything wrong", 400, ["ce-id", "ce-type", "ce-specversion", "ce-source", "ce-time"], head="ce-specversion: 9\nce-source: a b\nce-time: now"),
    Case("empty id", 400, ["ce-id"], head=EVENT.replace("ce-id: 1", "ce-id:")),
    Case("an attribute twice", 400, ["ce-type"], head=EVENT + "ce-type: u"),
    Case("a name that is none", 400, ["ce-a_b"], head=EVENT + "ce-a_b: x"),
    Case("not UTF-8", 400, ["ce-ext"], head=EVENT + "ce-ext: %ff"),
    Case("a line break in a value", 400, ["ce-ext"], head=EVENT + "ce-ext: a%0d%0ab: c"),
    Case("content type as an attribute", 400, ["ce-datacontenttype"], head=EVENT + "ce-datacontenttype: text/plain"),
    Case("no media type", 400, ["content-type"], head=EVENT + "content-type: x"),
    Case("two content types", 400, ["content-type"], head=f"{STRUCTURED}\n{BATCH}", body=JSON % b"1"),
    Case("structured, members", 400, ["id", "source", "type"], head=STRUCTURED, body=b'{"specversion":"1.0"}'),
    Case("structured, no object", 400, [""], head=STRUCTURED, body=b"[]"),
    Case("structured, no JSON", 400, [""], head=STRUCTURED, body=b"{"),
    Case("structured, not UTF-8", 400, [""], head=STRUCTURED, body=(JSON % b"1").replace(b'"n"', b'"\xff"')),
    Case("structured, too deep", 400, [""], head=STRUCTURED, body=b"[" * 19_000),
    Case("structured, data twice", 400, ["data"], head=STRUCTURED, body=(JSON % b"1").replace(b'"data"', b'"data_base64":"AA==","data"')),
    Case("structured, no base64", 400, ["data_base64"], head=STRUCTURED, body=(JSON % b"1").replace(b'"data":{"n":1}', b'"data_base64":"%"')),
    Case("batch, one is bad", 400, ["[1].specversion", "[1].id", "[1].source", "[1].type"], head=BATCH, body=b"[" + JSON % b"1" + b",{}]"),
    Case("batch, no array", 400, [""], head=BATCH, body=JSON % b"1"),
    Case("another format", 415, ["content-type"], head="content-type: application/cloudevents+xml", body=b"<x/>"),
    Case("another charset", 415, ["content-type"], head=STRUCTURED + "; charset=utf-16", body=b"{}"),
    Case("compressed", 415, ["content-encoding"], head=EVENT + "content-encoding: gzip", body=b"\x1f\x8b"),
    Case("it goes in a circle", 400, "51 channels", head=EVENT + "knative-eventing-hops: 51"),
    Case("it has been through many channels", 202, head=EVENT + "knative-eventing-hops: 50"),
    # how large it is
    Case("as large as may be", 202, body=b"x" * 20_000),
    Case("too large", 413, "20001 bytes, the limit is 20000", body=b"x" * 20_001),
    Case("too many headers", 431, "more than 100 headers", head=EVENT + "x: y\n" * 97),
    Case("a head too large", 431, "32768 bytes", head=EVENT + "x: " + "y" * 70_000),
    Case("a target too large", 431, "32768 bytes", target="/" + "y" * 70_000),
]  # fmt: skip


@pytest.fixture
async def mesh() -> AsyncIterator[DataPlaneRig]:
    async with DataPlaneRig(server_limits=SMALL) as mesh:
        mesh.channel("orders")
        yield mesh


@pytest.mark.parametrize("case", TABLE, ids=[case.name for case in TABLE])
async def test_the_table(mesh: DataPlaneRig, case: Case) -> None:
    if case.method == "HEAD":
        answer = await mesh.client.raw_head(f"HEAD {case.target} HTTP/1.1\r\nhost: {case.host}\r\n\r\n".encode())
    else:
        answer = await mesh.client.request(case.method, case.target, case.head, case.body, case.host)
    assert answer.status == case.status, answer
    assert answer.headers["date"].endswith(" GMT")
    receipts = re.findall(r"[0-9a-f]{8}-\d+", answer.headers.get("eventing-receipt", ""))
    sent = case.body.count(b"specversion") if case.head == BATCH else 1
    assert len(set(receipts)) == (sent if case.status == 202 else 0)
    assert mesh.journal.accepted_events == len(receipts)
    if case.status == 405:
        assert answer.headers["allow"] == "POST, OPTIONS"
    if case.status == 202:
        assert answer.body == b""
        assert not mesh.journal.refusals
        return
    if case.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        problem = json.loads(answer.body)
        assert problem["status"] == case.status
        assert problem["title"]
        if isinstance(case.names, str):
            assert case.names in problem["detail"]
            assert "faults" not in problem
        else:
            assert [fault["attribute"] for fault in problem["faults"]] == case.names
            assert all(fault["message"] for fault in problem["faults"])
    (refusal,) = mesh.journal.refusals
    assert refusal.status == case.status


@pytest.mark.parametrize(
    "head", ["", "webhook-request-origin: example.com\nwebhook-request-rate: 5\nwebhook-request-callback: http://x/"]
)
@pytest.mark.parametrize(("target", "host"), [(PATH, "localhost"), ("/", HOST)])
async def test_the_handshake(mesh: DataPlaneRig, head: str, target: str, host: str) -> None:
    """CloudEvents HTTP WebHook §4, and the probe of Knative's senders; both get what Knative's channels answer."""
    answer = await mesh.client.request("OPTIONS", target, head, host=host)
    assert (answer.status, answer.body) == (200, b"")
    wanted = {"allow": "POST, OPTIONS", "webhook-allowed-origin": "*", "webhook-allowed-rate": "*"}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    assert (await mesh.client.request("OPTIONS", "/default/nope", head)).status == 404


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_version_is_never_upgraded(mesh: DataPlaneRig, sink: Sink, version: str) -> None:
    """CDP-02, CDP-03, CDP-17 to CDP-19: in each mode what arrives at the subscriber is what was sent."""
    mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=1))
    await mesh.client.request("POST", PATH, EVENT.replace("1.0", version) + "content-type: text/plain", b"\x00\xff")
    body = (JSON % b"2").replace(b"1.0", version.encode())
    await mesh.client.request("POST", PATH, STRUCTURED, body)
    await mesh.client.request("POST", PATH, BATCH, b"[" + body.replace(b'"2"', b'"3"') + b"]")
    binary, structured, batched = await sink.received(3)
    assert binary.attributes == {"specversion": version, "id": "1", "source": "/shop", "type": "t"}
    assert (binary.header("content-type"), binary.body) == ("text/plain", b"\x00\xff")
    assert structured.body == body
    assert batched.body == body.replace(b'"2"', b'"3"')


async def test_answers_are_counted_and_refusals_are_told(mesh: DataPlaneRig) -> None:
    """CDP-23, CDP-24; what the server refuses before the channel sees it is counted too."""
    await mesh.client.request("POST", PATH, EVENT)
    await mesh.client.request("POST", PATH, EVENT.replace("ce-id: 1", "ce-id: 2") + "ce-time: x")
    await mesh.client.request("PUT", PATH)
    await mesh.client.request("POST", PATH, EVENT, b"x" * 20_001)
    (metrics,) = mesh.table.channel_metrics()
    assert metrics.codes == {202: 1, 400: 1, 405: 1, 413: 1}
    refused, _, too_large = mesh.journal.refusals
    assert (refused.channel, refused.event_id, refused.status) == ("default/orders", "2", 400)
    assert "ce-time" in refused.detail
    assert (too_large.channel, too_large.status) == ("default/orders", 413)
    told = await story(mesh.journal, "2")
    assert [refusal["status"] for refusal in told["refused"]] == [400]


async def test_what_is_kept_of_a_refused_request_is_small(mesh: DataPlaneRig) -> None:
    await mesh.client.request("POST", PATH, EVENT.replace("ce-id: 1", "ce-id: " + "i" * 10_000) + "ce-time: x")
    await mesh.client.request("POST", "/" + "t" * 10_000, EVENT)
    assert [len(refusal.event_id + refusal.channel) < 1000 for refusal in mesh.journal.refusals] == [True, True]


async def test_receipts_tell_two_events_of_one_id_apart(mesh: DataPlaneRig) -> None:
    """Both are accepted, each has its own receipt, and the id finds both (peers F22, F23)."""
    first = await mesh.accepted(make_event("1", b'{"n":1}'))
    second = await mesh.accepted(make_event("1", b'{"n":2}'))
    assert first != second
    assert [match["receipt"] for match in (await story(mesh.journal, "1"))["matches"]] == [first, second]
    assert [match["receipt"] for match in (await story(mesh.journal, second))["matches"]] == [second]


async def test_chunked_pipelined_and_expected_requests_reach_the_subscriber(mesh: DataPlaneRig, sink: Sink) -> None:
    mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=1))
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-source: /s\r\nce-type: t\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    for number in range(10):
        writer.write(
            head + b"ce-id: %d\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nz: 1\r\n\r\n" % number
        )
    writer.write(head + b"ce-id: 10\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    for _ in range(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abcde")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202")
    requests = await sink.received(11)
    assert [received.event_id for received in requests] == [str(number) for number in range(11)]
    assert {received.body for received in requests} == {b"abcde"}
    writer.transport.abort()
    await asyncio.sleep(0)


async def test_an_old_client_keeps_its_connection_through_a_learnt_shape(mesh: DataPlaneRig) -> None:
    for number in range(6):
        head = f"POST {PATH} HTTP/1.0\r\nconnection: Keep-Alive\r\n" + EVENT.replace("id: 1", f"id: {number}").replace(
            "\n", "\r\n"
        )
        answer = await mesh.client.raw(head.encode() + b"content-length: 0\r\n\r\n")
        assert (answer.status, answer.headers.get("connection")) == (202, "keep-alive")


async def test_who_expects_100_continue_is_refused_before_the_body(mesh: DataPlaneRig) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 20001\r\n\r\n".encode()
    assert (await mesh.client.raw(head)).status == 413


async def test_an_event_is_kept_although_its_client_is_gone_before_the_answer(mesh: DataPlaneRig, sink: Sink) -> None:
    mesh.channel("orders", subscriber("s", sink.url + "/"))
    event = make_event()
    _, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\n".encode() + event_head(event) + payload(event))
    await writer.drain()
    writer.transport.abort()
    (received,) = await sink.received(1)
    assert received.event_id == "1"


async def test_503_with_retry_after_when_the_byte_budget_is_gone_and_batches_whole_or_not_at_all(sink: Sink) -> None:
    async with DataPlaneRig(budget=20_000, server_limits=ServerLimits(body_bytes=1 << 20)) as mesh:
        sink.otherwise(Answer.never())
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        large = b"[" + b",".join(JSON % b"%d" % number for number in range(30)) + b"]"
        answer = await mesh.client.request("POST", PATH, BATCH, large)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert json.loads(answer.body)["status"] == 503
        assert mesh.table.pending == 0
        assert (await mesh.client.request("POST", PATH, BATCH, b"[" + JSON % b"1" + b"]")).status == 202
        assert mesh.table.pending == 1


async def test_an_event_that_the_channel_can_never_store_is_413_without_retry_after(sink: Sink) -> None:
    async with DataPlaneRig(server_limits=ServerLimits(body_bytes=32 << 20)) as mesh:
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        answer = await mesh.client.request("POST", PATH, EVENT, b"x" * (17 << 20))
        assert answer.status == 413
        assert "retry-after" not in answer.headers
        assert mesh.table.pending == 0
