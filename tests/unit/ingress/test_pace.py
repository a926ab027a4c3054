"""Who waits when the processor is short, in virtual time: producers, for some subscription to catch up, and never for long."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from eventing.ingress.pace import BEHIND, BUSY, LOOK_S, SPARE, TICK_S, WAIT_MAX_S, Pace, processor_share
from eventing.ingress.routes import Route
from eventing.testing.clock import VirtualClock


class Producer:
    """A request: when it was answered, and with what."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.answered: list[tuple[float, int, bytes]] = []

    def respond(self, status: int, lines: bytes = b"") -> None:
        self.answered.append((self._clock.elapsed, status, lines))


class Rig:
    """A pace whose processor and channel are as the test says."""

    def __init__(self, clock: VirtualClock) -> None:
        self.share = 0.0
        self.clock = clock
        self.pace = Pace(share=lambda: self.share, clock=clock)
        self.lags = {"default/orders": [0], "default/others": [0]}
        self.routes = {name: Route(name, cast("Any", None), cast("Any", None)) for name in self.lags}
        for name, route in self.routes.items():
            route.behind = self._behind(name)

    def _behind(self, name: str) -> Callable[[int], bool]:
        return lambda events: min(self.lags[name]) > events

    def accepted(self, name: str = "default/orders") -> Producer:
        """As the receiver does it."""
        producer = Producer(self.clock)
        if self.pace.short:
            self.pace.accepted(self.routes[name], cast("Any", producer), b"eventing-receipt: 1\r\n")
        else:
            producer.respond(202, b"eventing-receipt: 1\r\n")
        return producer


def play(story: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    clock = VirtualClock()

    async def main() -> None:
        rig = Rig(clock)
        rig.pace.start()
        try:
            await story(rig)
        finally:
            rig.pace.close()

    clock.run(main())


async def shortened(rig: Rig) -> None:
    rig.share = 1.0
    await asyncio.sleep(2 * LOOK_S)
    assert rig.pace.short


@pytest.mark.parametrize("share", [0.0, 0.5, BUSY])
def test_nobody_waits_while_the_processor_has_time(share: float) -> None:
    async def story(rig: Rig) -> None:
        rig.share = share
        rig.lags["default/orders"] = [10_000]  # a slow subscriber is no reason
        await asyncio.sleep(3 * LOOK_S)
        before = rig.clock.elapsed
        assert rig.accepted().answered == [(before, 202, b"eventing-receipt: 1\r\n")]

    play(story)


def test_one_subscription_that_follows_is_enough() -> None:
    async def story(rig: Rig) -> None:
        await shortened(rig)
        rig.lags["default/orders"] = [10_000, 10_000, BEHIND]
        assert rig.accepted().answered

    play(story)


def test_producers_wait_until_a_subscription_has_caught_up() -> None:
    async def story(rig: Rig) -> None:
        await shortened(rig)
        rig.lags["default/orders"] = [10_000, BEHIND + 1]
        waiting = [rig.accepted() for _ in range(3)]
        other = rig.accepted("default/others")
        await asyncio.sleep(0.5)
        assert other.answered, "another channel's producers have nothing to do with it"
        assert not any(producer.answered for producer in waiting)
        rig.lags["default/orders"] = [10_000, BEHIND]
        await asyncio.sleep(2 * TICK_S)
        assert [answer[1:] for producer in waiting for answer in producer.answered] == [(202, b"eventing-receipt: 1\r\n")] * 3

    play(story)


def test_nobody_waits_longer_than_that() -> None:
    async def story(rig: Rig) -> None:
        await shortened(rig)
        rig.lags["default/orders"] = [10_000]
        first = rig.accepted()
        began = rig.clock.elapsed
        await asyncio.sleep(WAIT_MAX_S / 2)
        second = rig.accepted()
        await asyncio.sleep(1.5 * WAIT_MAX_S)
        assert len(first.answered) == len(second.answered) == 1
        for producer, since in ((first, began), (second, began + WAIT_MAX_S / 2)):
            assert WAIT_MAX_S <= producer.answered[0][0] - since <= WAIT_MAX_S + 2 * TICK_S

    play(story)


def test_all_are_answered_when_the_processor_has_time_again() -> None:
    async def story(rig: Rig) -> None:
        await shortened(rig)
        rig.lags["default/orders"] = [10_000]
        rig.share = (BUSY + SPARE) / 2
        await asyncio.sleep(LOOK_S)
        assert rig.pace.short, "a little less is not enough"
        waiting = rig.accepted()
        rig.share = SPARE - 0.1
        await asyncio.sleep(2 * LOOK_S)
        assert len(waiting.answered) == 1
        assert not rig.pace.short

    play(story)


def test_the_end_answers_whoever_waits_and_leaves_no_timer() -> None:
    async def story(rig: Rig) -> None:
        await shortened(rig)
        rig.lags["default/orders"] = [10_000]
        waiting = rig.accepted()
        rig.pace.close()
        assert len(waiting.answered) == 1
        assert rig.accepted().answered
        await asyncio.sleep(2 * WAIT_MAX_S)
        assert len(waiting.answered) == 1

    play(story)


def test_the_share_of_the_processor_is_that_of_this_process() -> None:
    share = processor_share()
    share()
    total = 0
    for number in range(3_000_000):
        total += number
    assert share() > 0.8, "it ran, or waited to run, nearly all the time"
