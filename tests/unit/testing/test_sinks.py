"""The sink records what comes and misbehaves as told."""

import asyncio

import pytest

from eventing.testing.answers import Answer, failing_at_random
from eventing.testing.clock import VirtualClock
from eventing.testing.sinks import MalformedRequestError, Sink
from tests.unit.testing.http_client import EVENT, post, sent, until_reset


async def test_it_records_requests_as_they_came(sink: Sink) -> None:
    async with sent(sink.port, EVENT % (b"/a?x=1", b"e1") + EVENT % (b"/b", b"e2")) as (reader, _):
        first, second = await sink.received(2)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        await sink.until(lambda: sink.ids("/b") == {"e2"})
    assert first.headers == (("Host", "sink"), ("ce-id", "e1"), ("Ce-Type", "t"), ("content-length", "2"))
    assert (first.method, first.target, first.path, first.body, first.event_id) == ("POST", "/a?x=1", "/a", b"{}", "e1")
    assert first.attributes == {"id": "e1", "type": "t"}
    assert (second.path, second.number, second.connection) == ("/b", 1, first.connection)


async def test_chunks_and_structured_events_are_read(sink: Sink) -> None:
    body = b'{"id":"s1"}'
    request = b"POST / HTTP/1.1\r\nhost: s\r\ncontent-type: application/cloudevents+json\r\ntransfer-encoding: chunked\r\n\r\n"
    async with sent(sink.port, request + b"3\r\n" + body[:3] + b"\r\n8;x=y\r\n" + body[3:] + b"\r\n0\r\n\r\n"):
        (received,) = await sink.received(1)
    assert (received.body, received.event_id) == (body, "s1")


async def test_scripted_answers_come_first_then_the_rule_of_the_path_then_200(sink: Sink) -> None:
    sink.script("/a", Answer(503), Answer.retry_after(429, "7"))
    sink.always("/a", Answer(410))
    assert [await post(sink.port, "/a") for _ in range(4)] == [503, 429, 410, 410]
    assert await post(sink.port, "/b") == 200
    assert sink.ids("/a") == set()
    assert sink.ids("/b") == {"1"}


async def test_waiting_for_too_much_says_what_came(sink: Sink) -> None:
    await post(sink.port, "/a")
    with pytest.raises(AssertionError, match=r"2 requests to /a did not come within 0.05 s; the sink got 1 at /a"):
        await sink.received(2, "/a", within=0.05)


async def test_a_cut_is_a_reset(sink: Sink) -> None:
    sink.script("/", Answer.cut(), Answer.cut(20))
    for wanted in (b"", b"HTTP/1.1 200 OK\r\ncon"):
        async with sent(sink.port, EVENT % (b"/", b"1")) as (reader, _):
            assert await until_reset(reader) in {b"", wanted}  # a reset may overtake what was sent before it
    assert sink.ids("/") == set()


async def test_answers_without_end_end_with_their_client(sink: Sink) -> None:
    for answer in (Answer.never(), Answer.endless_headers(), Answer.slow(), Answer.huge(), Answer(200).after(3600)):
        sink.script("/", answer)
        async with sent(sink.port, EVENT % (b"/", b"1")):
            await sink.until(lambda: sink.open_connections == 1)
        await sink.until(lambda: sink.open_connections == 0, what=f"the end of {answer}")
    assert sink.ids("/") == set()


async def test_a_huge_answer_is_as_long_as_announced(sink: Sink) -> None:
    sink.script("/", Answer.huge(300_001))
    async with sent(sink.port, EVENT % (b"/", b"1")) as (reader, _):
        assert b"content-length: 300001\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(300_001)) == 300_001


def test_delays_and_slow_bytes_take_virtual_time(virtual_clock: VirtualClock) -> None:
    async def main() -> None:
        async with Sink() as sink:
            sink.script("/", Answer(204, length=False).after(30))
            assert await post(sink.port) == 204
            assert virtual_clock.elapsed == 30
            sink.script("/", Answer.slow(2.0, b"ab"))
            async with sent(sink.port, EVENT % (b"/", b"1")) as (reader, _):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                assert virtual_clock.elapsed == 30 + 2 * (len(head) + 1)
            assert [received.at for received in sink.requests] == [1000.0, 1030.0]

    virtual_clock.run(main())


async def test_random_failures_are_the_same_for_the_same_seed(sink: Sink) -> None:
    async def statuses(seed: int) -> list[int]:
        sink.always("/", failing_at_random(seed, 0.5, Answer(500), Answer.cut()))
        return [await post(sink.port) for _ in range(40)]

    first = await statuses(7)
    assert first == await statuses(7)
    assert set(first) == {200, 500, 0}
    assert first != await statuses(8)


async def test_a_sink_comes_back_on_its_port(sink: Sink) -> None:
    port = sink.port
    await sink.aclose()
    with pytest.raises(ConnectionRefusedError):
        await post(port)
    await sink.start()
    assert await post(port) == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.0\r\nhost: s\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\nhost: s\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\nx : y\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\nx: a\nb\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\ncontent-length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    ],
)
async def test_what_breaks_http_fails_the_test(request_: bytes) -> None:
    sink = Sink()
    await sink.start()
    async with sent(sink.port, request_) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    with pytest.raises(MalformedRequestError):
        await sink.aclose()
