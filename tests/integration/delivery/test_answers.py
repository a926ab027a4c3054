"""What subscribers may do: broken, endless and odd answers; addresses that must not be called. In virtual time."""

import asyncio
import base64
import json
from typing import Any

import pytest

from eventing.testing.sinks import Answer, Sink
from eventing.wire.client import ClientLimits
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import run


@pytest.mark.parametrize(
    ("name", "answer", "error"),
    [
        ("no answer", Answer.never(), "Timeout"),
        ("one byte a second", Answer.slow(), "Timeout"),
        ("a head and then nothing", Answer(silent_after=60, body=b"x" * 1000), "Timeout"),
        ("endless headers", Answer.endless_headers(), "HeadersTooLarge"),
        ("cut before the answer", Answer.cut(), "ConnectionLost"),
        ("cut in its head", Answer.cut(20), "ConnectionLost"),
        ("cut in its body", Answer.cut(200), "ConnectionLost"),
        ("no HTTP", Answer.garbage(), "ProtocolError"),
        ("only 1xx", Answer(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n", close=True), "ConnectionLost"),
        ("endless 1xx", Answer(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, silent_after=10**9), "HeadersTooLarge"),
        ("endless trailers", Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: " + b"y" * 10**6,
                                    silent_after=10**9), "HeadersTooLarge"),
        ("two lengths", Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", close=True), "ProtocolError"),
    ],
)  # fmt: skip
def test_a_broken_answer_is_recorded_and_leaks_nothing(name: str, answer: Answer, error: str) -> None:
    """F12, F15, F18."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=1, timeout="PT5S"))
        tasks = len(asyncio.all_tasks())
        sink.script("/", answer)
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, within=100, step=0.1) == ("delivered", ""), name
        attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
        if error == "HeadersTooLarge" and len(attempts) == 1:
            assert attempts[0]["status"] == 200, "what the head said counts"
        else:
            assert attempts[0]["error"].startswith(error), attempts
            assert attempts[0]["duration_ms"] < 5300
        async with asyncio.timeout(5):
            while sink.open_connections > 1 or len(asyncio.all_tasks()) > tasks + 1 + sink.open_connections:
                await asyncio.sleep(0.01)
        assert mesh.connections.open_connections == sink.open_connections <= 1

    run(test)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("204", Answer(204)),
        ("no length", Answer(raw=b"HTTP/1.1 200 OK\r\n\r\nsome text", close=True)),
        ("HTTP/1.0", Answer(raw=b"HTTP/1.0 200 OK\r\n\r\nsome text", close=True)),
        ("connection: close", Answer(close=True)),
        ("1xx first", Answer(raw=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")),
        ("chunked", Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nce-id: x\r\n\r\n")),
        ("a body beyond the limit", Answer(body=b"x" * 5000)),
        ("1 GB", Answer.huge()),
        ("a second answer", Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")),
        ("rubbish behind", Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nrubbish")),
        ("an offer to upgrade", Answer(200, (("upgrade", "h2,h2c"), ("connection", "upgrade")))),
        ("unasked compression", Answer(200, (("content-encoding", "gzip"),), b"\x1f\x8b\x08bomb")),
    ],
)  # fmt: skip
def test_odd_answers_that_are_success(name: str, answer: Answer) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=sink.url + "/reply", retry=0))
        sink.script("/", answer)
        assert await mesh.ended(await mesh.accepted(make_event("1"))) == ("delivered", ""), name
        assert await mesh.ended(await mesh.accepted(make_event("2"))) == ("delivered", "")
        assert sink.at("/reply") == []

    run(test, client_limits=ClientLimits(body_bytes=1000))


def test_to_switch_protocols_is_final() -> None:
    """1xx is no success and not to be retried (data-plane contract, the table of answers)."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"))
        sink.script("/", Answer(101, (("upgrade", "x"), ("connection", "upgrade"))))
        assert await mesh.ended(await mesh.accepted(make_event())) == ("dead-lettered", "NotRetriable")
        assert len(sink.at("/")) == 1
        assert sink.at("/dead")[0].attributes["knativeerrorcode"] == "101"

    run(test)


def test_the_time_of_an_attempt_includes_the_time_to_connect() -> None:
    """F11: a host that drops what is sent to it."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        dropping = subscriber(
            "s", "http://192.0.2.1/", retry=1, timeout="PT2S", backoff_delay="PT0S", dead_letter=sink.url + "/dead"
        )
        mesh.channel("orders", dropping)
        began = mesh.clock()
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, within=100, step=0.05) == ("dead-lettered", "Exhausted")
        assert mesh.clock() - began == pytest.approx(4, abs=0.5)
        attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
        assert [attempt["error"].partition(":")[0] for attempt in attempts] == ["ConnectTimeout", "ConnectTimeout", ""]

    async def hanging(origin: Any, factory: Any) -> None:
        if origin.host == "192.0.2.1":
            await asyncio.sleep(1000)
        await asyncio.get_running_loop().create_connection(factory, origin.host, origin.port)

    run(test, connector=hanging)


def test_a_refusal_with_an_endless_body_is_still_that_refusal() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"))
        sink.script("/", Answer(400, padding=1 << 30))
        assert await mesh.ended(await mesh.accepted(make_event())) == ("dead-lettered", "NotRetriable")
        (letter,) = sink.at("/dead")
        assert letter.attributes["knativeerrorcode"] == "400"

    run(test)


def test_a_kept_connection_that_was_closed_is_no_attempt() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=0))
        for number in range(5):
            sink.script("/", Answer(), Answer(silent_after=None, cut_after=0))
            first, second = make_event(f"{number}a"), make_event(f"{number}b")
            assert await mesh.ended(await mesh.accepted(first)) == ("delivered", "")
            receipt = await mesh.accepted(second)
            assert await mesh.ended(receipt) == ("delivered", "")
            (attempt,) = (await mesh.deliveries(receipt))["s"]["attempts"]
            assert attempt["number"] == 1
        assert mesh.table.pending == 0

    run(test)


def test_nobody_there_and_then_somebody() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        await sink.aclose()
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(25)]
        await asyncio.sleep(1.2)
        await sink.start()
        for receipt in receipts:
            assert await mesh.ended(receipt, within=100, step=0.1) == ("delivered", "")
        attempts = (await mesh.deliveries(receipts[-1]))["s"]["attempts"]
        assert attempts[0]["error"].startswith("ConnectFailed")
        assert {received.event_id for received in sink.requests} == {str(number) for number in range(25)}

    run(test)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("http://169.254.169.254/latest/meta-data", "AddressDenied"),
        ("http://2852039166/", "AddressDenied"),
        ("http://[fe80::1]/", "AddressDenied"),
        ("ftp://example.com/", "AddressDenied: 'ftp://example.com/': the scheme must be http or https"),
        ("http://user:secret@example.com/", "AddressDenied: credentials do not belong"),
        ("http://a..b/", "NameNotResolved"),
    ],
)
def test_what_must_not_or_cannot_be_connected_to_ends_with_a_reason(uri: str, error: str) -> None:
    """A1, A3; and promise 2: even a subscription that can never be served loses nothing silently."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", uri, retry=0, dead_letter=sink.url + "/dead"), subscriber("t", sink.url + "/t"))
        receipt = await mesh.accepted(make_event())
        assert (await mesh.ended(receipt))[0] == "dead-lettered"
        deliveries = await mesh.deliveries(receipt)
        assert deliveries["s"]["attempts"][0]["error"].startswith(error)
        assert await mesh.ended(receipt, "t") == ("delivered", "")
        assert "secret" not in json.dumps(deliveries)
        (letter,) = sink.at("/dead")
        assert error.partition(":")[0] in base64.b64decode(letter.attributes["knativeerrordata"]).decode()
        assert "secret" not in str(letter)

    run(test)
