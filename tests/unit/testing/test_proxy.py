"""The proxy passes bytes on, and fails as told."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventing.testing.clock import VirtualClock
from eventing.testing.proxy import TcpProxy
from eventing.testing.sinks import Sink
from tests.unit.testing.http_client import EVENT, post, sent, until_reset

Before = Callable[[str, int], Awaitable[TcpProxy]]


@pytest.fixture
async def proxy(sink: Sink, tcp_proxy: Before) -> TcpProxy:
    return await tcp_proxy(sink.host, sink.port)


async def test_it_passes(sink: Sink, proxy: TcpProxy) -> None:
    assert [await post(proxy.port, event_id=str(number)) for number in range(3)] == [200, 200, 200]
    assert sink.ids("/") == {"0", "1", "2"}
    assert proxy.accepted == 3
    assert proxy.up_bytes == 3 * len(EVENT % (b"/", b"0"))
    assert proxy.down_bytes > 0


async def test_the_end_of_a_stream_travels_in_good_order(proxy: TcpProxy) -> None:
    async with sent(proxy.port, EVENT % (b"/", b"1")) as (reader, writer):
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 200")


async def test_cut_resets_what_is_open_and_lets_new_ones_pass(sink: Sink, proxy: TcpProxy) -> None:
    async with sent(proxy.port, EVENT % (b"/", b"1")) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        proxy.cut()
        await until_reset(reader)
        await sink.until(lambda: sink.open_connections == 0)
    assert await post(proxy.port) == 200


async def test_cut_after_some_bytes_cuts_once(sink: Sink, proxy: TcpProxy) -> None:
    proxy.cut_after(50)
    assert await post(proxy.port) == 0
    assert proxy.up_bytes == 50
    assert await post(proxy.port) == 200
    assert len(sink.requests) == 1


async def test_refuse_and_resume_on_the_same_port(proxy: TcpProxy) -> None:
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await post(proxy.port)
    await proxy.resume()
    assert await post(proxy.port) == 200


async def test_half_open_says_nothing_until_resumed(sink: Sink, proxy: TcpProxy) -> None:
    proxy.half_open()
    async with sent(proxy.port, EVENT % (b"/", b"1")) as (reader, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert sink.requests == []
        await proxy.resume()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_target_that_is_not_there_resets_the_client(sink: Sink, proxy: TcpProxy) -> None:
    await sink.aclose()
    assert await post(proxy.port) == 0


def test_delay_holds_back_both_directions(virtual_clock: VirtualClock) -> None:
    async def main() -> None:
        async with Sink() as sink, TcpProxy(sink.host, sink.port) as proxy:
            proxy.delay_s = 0.3
            assert await post(proxy.port) == 200
            assert virtual_clock.elapsed == 0.6

    virtual_clock.run(main())
