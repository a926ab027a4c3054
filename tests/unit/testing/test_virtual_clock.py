"""Virtual time passes at once, in order and exactly."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from eventing.testing.clock import StuckError, VirtualClock


def test_an_hour_takes_no_time_and_is_exact(virtual_clock: VirtualClock) -> None:
    began = time.monotonic()
    virtual_clock.run(asyncio.sleep(3600.1))
    assert virtual_clock.elapsed == 3600.1
    assert time.monotonic() - began < 2


def test_timers_fire_in_order_at_their_times(virtual_clock: VirtualClock) -> None:
    fired: list[tuple[str, float]] = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        fired.append((name, virtual_clock.elapsed))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(after(86400 * 3, "third"))
            group.create_task(after(0.1, "first"))
            group.create_task(after(0.3, "second"))

    virtual_clock.run(main())
    assert fired == [("first", 0.1), ("second", 0.3), ("third", 259200.0)]


def test_time_outs_are_exact(virtual_clock: VirtualClock) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        virtual_clock.run(main())
    assert virtual_clock.elapsed == 30


def test_the_loop_and_the_clock_agree(virtual_clock: VirtualClock) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.time() == virtual_clock.now() == virtual_clock()
        virtual_clock.advance(5)
        await asyncio.sleep(1)
        assert loop.time() == virtual_clock.now()

    virtual_clock.run(main())
    assert virtual_clock.elapsed == 6


def test_an_executor_is_waited_for_before_time_jumps(virtual_clock: VirtualClock) -> None:
    def work() -> str:
        time.sleep(0.05)
        return "done"

    async def main() -> str:
        async with asyncio.timeout(1):
            return await asyncio.to_thread(work)

    assert virtual_clock.run(main()) == "done"
    assert virtual_clock.elapsed == 0


def test_what_never_happens_is_an_error_and_not_a_hang(virtual_clock: VirtualClock) -> None:
    with pytest.raises(StuckError, match="no timer is set"):
        virtual_clock.run(asyncio.Event().wait(), patience_s=0.05)


def test_sockets_of_the_loop_are_served_before_time_jumps(virtual_clock: VirtualClock) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            for _ in range(20):
                async with asyncio.timeout(1):
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
                    writer.write(b"ping")
                    assert await reader.read() == b"ping"
                    writer.close()
                    await writer.wait_closed()

    virtual_clock.run(main())
    assert virtual_clock.elapsed == 0


def test_the_calendar_jumps_without_monotonic_time(virtual_clock: VirtualClock) -> None:
    assert virtual_clock.utc_now() == datetime(2026, 1, 1, tzinfo=UTC)
    virtual_clock.jump_wall(-7200)
    virtual_clock.advance(0.5)
    assert virtual_clock.utc_now() == datetime(2025, 12, 31, 22, 0, 0, 500000, tzinfo=UTC)
    assert virtual_clock.wall() == datetime(2025, 12, 31, 22, 0, 0, 500000, tzinfo=UTC).timestamp()
    assert virtual_clock.elapsed == 0.5


def test_monotonic_time_does_not_go_back(virtual_clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="jump_wall"):
        virtual_clock.advance(-1)


def test_who_is_called_a_fraction_of_a_nanosecond_early_can_wait_for_the_rest(virtual_clock: VirtualClock) -> None:
    async def main() -> None:
        due = virtual_clock() + 0.1 + 3e-10
        async with asyncio.timeout(1):
            while virtual_clock() < due:
                await asyncio.sleep(due - virtual_clock())

    virtual_clock.run(main())
