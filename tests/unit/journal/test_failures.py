"""Failures on disk: what is found again, what is counted, and that nothing of it holds anybody up."""

import asyncio
import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventing.errors import StartError
from eventing.event import Event
from eventing.journal import Decision, Journal, Rule
from eventing.journal.failures import FailureLog
from eventing.journal.segments import header
from eventing.journal.story import trace
from tests.support.data_plane import make_event
from tests.support.waiting import DEADLINE_S


def new_journal() -> Journal:
    return Journal(clock=time.monotonic, wall=time.time)


@asynccontextmanager
async def recording(directory: Path, journal: Journal, **options: Any) -> AsyncIterator[FailureLog]:
    async with asyncio.TaskGroup() as tasks:
        failures = FailureLog(directory, journal, **options)
        failures.open()
        failures.start(tasks)
        yield failures
        await failures.aclose()


def fail(journal: Journal, event: Event, subscriber: int, place: int, *, data: bool = True) -> str:
    """An event is accepted, tried twice in vain, and dropped; its receipt."""
    event.receipt = journal.next_receipt()
    journal.accepted(event, place, b"127.0.0.1:1")
    now = time.monotonic()
    journal.attempted(
        event.receipt, subscriber, 1, now, 0.01, 503, Decision.RETRYING, Rule.EXPONENTIAL,
        limit=1, wait_s=0.5, note="busy", delay_s=0.5, head="retry-after: 1",
    )  # fmt: skip
    journal.attempted(event.receipt, subscriber, 2, now, 0.01, 503, Decision.FAILED, Rule.EXHAUSTED, limit=1, note="busy")
    journal.ended(event, subscriber, now, 0.0, 0, Decision.DROPPED, Rule.NO_DEAD_LETTER_SINK)
    return journal.receipt_text(event.receipt)


def placed(journal: Journal, *, data: bool = True) -> tuple[int, int]:
    subscriber = journal.subscriber("default/a", "uid-a", "http://user:pass@a/?key=s3cret")
    return subscriber, journal.place("default/orders", (subscriber,), data=data)


async def until(probe: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not probe():
            await asyncio.sleep(0.005)
    assert probe(), what


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


async def test_a_failure_is_found_again_by_the_next_process(tmp_path: Path) -> None:
    journal = new_journal()
    async with recording(tmp_path, journal):
        receipt = fail(journal, make_event("lost", b'{"n":1}'), *placed(journal))
    assert (journal.failures_written, journal.failures_lost) == (1, 0)
    later = new_journal()
    async with recording(tmp_path, later) as failures:
        for query in ("lost", receipt):
            (match,) = (await trace(later, query, recorded=failures.find)).matches
            assert (match.receipt, match.id, match.channel, match.from_, match.kept) == (
                receipt, "lost", "default/orders", "127.0.0.1:1", "disk",
            )  # fmt: skip
            (delivery,) = match.deliveries
            assert (delivery.state, delivery.reason, delivery.subscription) == ("dropped", "NoDeadLetterSink", "default/a")
            assert [attempt.number for attempt in delivery.attempts] == [1, 2, 0]
            assert delivery.attempts[0].decision == "503 → retry 1 of 1 in 0.5 s: exponential PT0.5S, jitter"
            assert delivery.attempts[0].response is not None
            assert delivery.attempts[0].response.headers == {"retry-after": "1"}
        (whole,) = await failures.find("lost", with_data=True)
        assert whole.data.base64 == "eyJuIjoxfQ=="
        assert await failures.find("lost2") == await failures.find("los") == []
    assert len(segments(tmp_path)) == 1, "who writes nothing makes no file"


async def test_a_thousand_attempts_with_all_that_was_answered_are_readable(tmp_path: Path) -> None:
    """A record that is longer than a reader takes for possible would be damage to it: the older attempts are left out."""
    journal = new_journal()
    async with recording(tmp_path, journal) as failures:
        subscriber, place = placed(journal)
        event = make_event("stubborn", b"{}")
        event.receipt = journal.next_receipt()
        journal.accepted(event, place, b"127.0.0.1:1")
        for number in range(1, 1001):
            journal.attempted(
                event.receipt, subscriber, number, 0.0, 0.01, 503, Decision.RETRYING, Rule.EXPONENTIAL,
                limit=1000, note="n" * 500, delay_s=0.5, head="x-reason: " + "r" * 2000,
            )  # fmt: skip
        journal.ended(event, subscriber, 0.0, 0.0, 0, Decision.DROPPED, Rule.NO_DEAD_LETTER_SINK)
        await until(lambda: journal.failures_written == 1, "it is written")
        (match,) = await failures.find("stubborn")
    (delivery,) = match.deliveries
    numbers = [attempt.number for attempt in delivery.attempts]
    assert delivery.state == "dropped"
    assert numbers == [*range(1001 - len(numbers) + 1, 1001), 0]
    assert 100 < len(numbers) < 1000


async def test_nobody_else_may_read_them_and_no_secret_is_in_them(tmp_path: Path) -> None:
    journal = new_journal()
    async with recording(tmp_path / "journal", journal):
        fail(journal, make_event("1"), *placed(journal))
    (segment,) = segments(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert segment.stat().st_mode & 0o777 == 0o600
    assert b"pass" not in segment.read_bytes()
    assert b"s3cret" not in segment.read_bytes()


async def test_a_channel_that_wants_no_data_kept_has_none_on_disk(tmp_path: Path) -> None:
    journal = new_journal()
    async with recording(tmp_path, journal) as failures:
        fail(journal, make_event("1", b"planted-data"), *placed(journal, data=False))
        await until(lambda: journal.failures_written == 1, "it is written")
        (match,) = await failures.find("1", with_data=True)
    assert (match.data.kept, match.data.base64, match.source) == (False, None, "/shop")
    assert b"planted-data" not in segments(tmp_path)[0].read_bytes()


async def test_a_torn_tail_costs_only_what_was_torn(tmp_path: Path) -> None:
    journal = new_journal()
    async with recording(tmp_path, journal):
        subscriber, place = placed(journal)
        for number in range(3):
            fail(journal, make_event(str(number)), subscriber, place)
    (segment,) = segments(tmp_path)
    raw = segment.read_bytes()
    segment.write_bytes(raw[:-1])
    later = new_journal()
    async with recording(tmp_path, later) as failures:
        assert [len(await failures.find(str(number))) for number in range(3)] == [1, 1, 0]
        fail(later, make_event("after"), *placed(later))
        await until(lambda: later.failures_written == 1, "it is written")
        assert len(await failures.find("after")) == 1
    assert len(segments(tmp_path)) == 2, "nothing is appended behind a torn tail"


async def test_segments_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    journal = new_journal()
    async with recording(tmp_path, journal, segment_bytes=10_000, total_bytes=40_000) as failures:
        subscriber, place = placed(journal)
        for number in range(100):
            fail(journal, make_event(str(number), b"x" * 1000), subscriber, place)
            if number % 10 == 9:
                await until(lambda: journal.failures_written + journal.failures_lost > number, "it is written")  # noqa: B023
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= 40_000
        assert await failures.find("0") == []
        assert len(await failures.find("99")) == 1
    assert journal.failures_lost == 0


async def test_several_processes_share_the_directory_and_its_bound(tmp_path: Path) -> None:
    quiet, busy = new_journal(), new_journal()
    bounds = {"segment_bytes": 10_000, "total_bytes": 40_000}
    async with recording(tmp_path, quiet, **bounds) as one, recording(tmp_path, busy, **bounds) as other:
        subscriber, place = placed(quiet)
        fail(quiet, make_event("first"), subscriber, place)
        await until(lambda: quiet.failures_written == 1, "it is written")
        assert len(await other.find("first")) == 1, "each finds what the other has written"
        busy_subscriber, busy_place = placed(busy)
        for number in range(100):
            fail(busy, make_event(f"busy-{number}", b"x" * 1000), busy_subscriber, busy_place)
            if number % 10 == 9:
                await until(lambda: busy.failures_written > number, "it is written")  # noqa: B023
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= 40_000
        assert await one.find("first") == [], "it was the oldest"
        # The segment that the quiet one was writing to is gone: it begins another.
        fail(quiet, make_event("second"), subscriber, place)
        await until(lambda: quiet.failures_written == 2, "it is written")
        assert len(await other.find("second")) == 1
        assert len(await one.find("busy-99")) == 1
    assert (quiet.failures_lost, busy.failures_lost) == (0, 0)
    async with recording(tmp_path, new_journal()) as alone:
        assert len(await alone.find("second")) == len(await alone.find("busy-99")) == 1


async def test_a_full_disk_is_said_once_and_counted_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = new_journal()
    full = True

    def write(fd: int, data: bytes) -> int:
        if full:
            os.write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    now = 0.0
    with caplog.at_level(logging.WARNING):
        async with recording(tmp_path, journal, write=write, clock=lambda: now) as failures:
            subscriber, place = placed(journal)
            for number in range(50):
                fail(journal, make_event(str(number)), subscriber, place)
            await until(lambda: journal.failures_lost == 50, "all are counted")
            assert [record.message for record in caplog.records] == ["failed events cannot be recorded on disk; delivery goes on"]
            assert segments(tmp_path) == [], "nothing was written, and nothing is left"
            full, now = False, 10.0
            fail(journal, make_event("later"), subscriber, place)
            await until(lambda: journal.failures_written == 1, "it is written")
            assert len(await failures.find("later")) == 1
    assert caplog.records[-1].message == "failed events are recorded on disk again"
    assert vars(caplog.records[-1])["lost"] == 50
    assert (journal.failures_written, journal.failures_lost) == (1, 50)


async def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_more_memory_than_the_queue(tmp_path: Path) -> None:
    journal = new_journal()
    hanging, calls = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    def write(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        asyncio.run_coroutine_threadsafe(hanging.wait(), loop).result(DEADLINE_S)
        return os.write(fd, data)

    async with recording(tmp_path, journal, write=write):
        subscriber, place = placed(journal)
        fail(journal, make_event("first"), subscriber, place)
        await until(lambda: calls > 0, "the disk is asked")
        for number in range(40):
            fail(journal, make_event(str(number), b"x" * (1 << 20)), subscriber, place)
        assert 0 < journal.failures_lost < 40, "16 MiB are queued, the rest is counted"
        hanging.set()
    assert journal.failures_written + journal.failures_lost == 41


async def test_a_newer_segment_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "failures-1.seg").write_bytes(header(1, version=2))
    with pytest.raises(StartError, match="newer eventing-mesh"):
        FailureLog(tmp_path, new_journal()).open()


async def test_a_directory_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(StartError, match="cannot be used"):
        FailureLog(tmp_path / "journal", new_journal()).open()


async def test_what_memory_has_lost_the_disk_knows(tmp_path: Path) -> None:
    journal = Journal(clock=time.monotonic, wall=time.time, attempts=8)
    async with recording(tmp_path, journal) as failures:
        subscriber, place = placed(journal)
        receipt = fail(journal, make_event("1"), subscriber, place)
        await until(lambda: journal.failures_written == 1, "it is written")
        for _ in range(10):
            journal.attempted(999, subscriber, 1, time.monotonic(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
        (forgotten,) = (await trace(journal, receipt)).matches
        assert (forgotten.deliveries[0].state, forgotten.deliveries[0].reason) == ("unknown", "Overwritten")
        (known,) = (await trace(journal, receipt, recorded=failures.find)).matches
        assert (known.deliveries[0].state, known.kept) == ("dropped", "memory")
