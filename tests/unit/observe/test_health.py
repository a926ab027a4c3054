"""Health as probes and people read it, and the watch over the event loop."""

import asyncio
import threading
import time

import pytest

from eventing.observe.health import Check, Health, State
from eventing.observe.stalls import LoopFigures, LoopWatch, loop_check

GOOD = Check("ingress")
SO_SO = Check("control", State.DEGRADED, "away for 12 s")
BAD = Check("channels", State.FAILED, "not listed yet")


def health(*checks: Check) -> Health:
    return Health(live=lambda: [Check("loop")], ready=lambda: checks)


@pytest.mark.parametrize(
    ("checks", "query", "status", "body"),
    [
        ((GOOD,), "", 200, "ok"),
        ((GOOD,), "verbose", 200, "[+]ingress ok\nreadyz check passed\n"),
        ((GOOD, SO_SO), "", 200, "[+]ingress ok\n[!]control degraded: away for 12 s\nreadyz check passed\n"),
        (
            (GOOD, BAD),
            "",
            503,
            "[+]ingress ok\n[-]channels failed: not listed yet\nreadyz check failed\n",
        ),
        ((GOOD, BAD), "exclude=channels", 200, "ok"),
        ((GOOD, BAD, SO_SO), "exclude=channels&exclude=control&verbose=1", 200, "[+]ingress ok\nreadyz check passed\n"),
    ],
)
def test_the_body_says_what_the_code_means(checks: tuple[Check, ...], query: str, status: int, body: str) -> None:
    assert health(*checks).answer("/readyz", query) == (status, body)


def test_one_check_can_be_asked_for() -> None:
    found = health(GOOD, BAD)
    assert found.answer("/readyz/ingress") == (200, "ok")
    assert found.answer("/readyz/channels") == (503, "[-]channels failed: not listed yet\nreadyz check failed\n")
    assert found.answer("/readyz/nothing") is None
    assert found.answer("/metrics") is None


def test_alive_is_another_question_than_ready() -> None:
    found = health(BAD)
    assert found.answer("/healthz") == found.answer("/livez") == (200, "ok")


async def _until(told: threading.Event) -> None:
    async with asyncio.timeout(20):
        while not told.is_set():
            await asyncio.sleep(0.01)


async def test_a_loop_that_is_stuck_is_told_with_the_place_and_then_ended() -> None:
    """The loop really blocks; it is freed by the very calls that are expected."""
    stuck, ended, place = threading.Event(), threading.Event(), list[str]()

    def say(_seconds: float, stack: str) -> None:
        place.append(stack)
        stuck.set()

    figures = LoopFigures()
    watch = LoopWatch(stuck=say, end=ended.set, every_s=0.02, stuck_s=0.1, end_s=0.3, figures=figures)
    watch.start()

    def planted_block() -> None:
        assert stuck.wait(20)
        assert ended.wait(20)

    planted_block()
    assert "planted_block" in place[0]
    watch.stop()
    assert not figures.watched


async def test_a_loop_that_turns_is_left_alone_and_its_lateness_is_known() -> None:
    stuck, ended = threading.Event(), threading.Event()
    figures = LoopFigures()
    watch = LoopWatch(stuck=lambda *_: stuck.set(), end=ended.set, every_s=0.02, stuck_s=3600, end_s=3600, figures=figures)
    watch.start()
    async with asyncio.timeout(20):
        while figures.longest_s < 1.0:
            await asyncio.sleep(0.05)
            time.sleep(1.1)  # noqa: ASYNC251 - a late turn is the point
    async with asyncio.timeout(20):
        while not figures.stalls:
            await asyncio.sleep(0.01)
    watch.stop()
    assert not stuck.is_set()
    assert not ended.is_set()
    figures.watched = True
    assert f"{figures.stalls} stalls" in loop_check(figures).detail
