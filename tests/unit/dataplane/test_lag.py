"""Who is behind, and when that is worth a write."""

import pytest

from eventing.channels import Lag
from eventing.dataplane.lag import BEHIND_S, EVERY_S, LagWatch
from eventing.resources.kinds import Object

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


class Process:
    """Subscriptions of a process with their lags, and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.memory: dict[str, Lag] = {}
        self.durable: dict[str, Lag] = {}
        self.events = 0
        self.looked_at: list[str] = []
        self.watch = LagWatch(self._lags, lambda: self.events, wall=lambda: self.now)

    def _lags(self, durable_only: bool) -> list[tuple[str, str, bool, Lag]]:
        found = [(uid, f"default/{uid}", True, lag) for uid, lag in self.durable.items()]
        if not durable_only:
            found += [(uid, f"default/{uid}", False, lag) for uid, lag in self.memory.items()]
        self.looked_at = [uid for uid, *_ in found]
        return found

    async def after(self, seconds: float = EVERY_S) -> dict[str, Object | None]:
        self.now += seconds
        return await self.watch.changes()


def lag(events: int | None, oldest_s: float | None) -> Lag:
    return Lag(events, None, oldest_s)


async def test_who_is_behind_is_told_once_and_again_when_it_moves() -> None:
    process = Process()
    process.durable["a"] = lag(5, 12.0)
    assert await process.after(0) == {"a": {"subscription": "default/a", "events": 5, "oldest": "2027-01-15T07:59:48Z"}}
    process.durable["a"] = lag(5, 22.3)
    assert await process.after() == {}, "the same events wait"
    process.durable["a"] = lag(7, 32.0)
    assert await process.after() == {"a": {"subscription": "default/a", "events": 7, "oldest": "2027-01-15T07:59:48Z"}}
    process.durable["a"] = lag(7, 20.0)
    assert await process.after() == {"a": {"subscription": "default/a", "events": 7, "oldest": "2027-01-15T08:00:10Z"}}
    process.durable["a"] = lag(0, None)
    assert await process.after() == {"a": None}
    assert await process.after() == {}


async def test_who_keeps_up_is_not_told_of_however_busy() -> None:
    process = Process()
    for number in range(10):
        process.memory["a"] = lag(1000 + number, BEHIND_S - 0.1)
        process.events += 1000
        assert await process.after() == {}
    process.memory["a"] = lag(1000, BEHIND_S)
    assert list(await process.after()) == ["a"]


async def test_events_without_an_age_are_told_of_once_they_have_waited_for_a_round() -> None:
    """A back end may know how many there are before it has seen one."""
    process = Process()
    process.durable["a"] = lag(9, None)
    assert await process.after() == {}
    assert await process.after() == {"a": {"subscription": "default/a", "events": 9, "oldest": None}}
    process.durable["a"] = lag(None, 30.0)
    assert await process.after() == {"a": {"subscription": "default/a", "events": None, "oldest": "2027-01-15T08:00:00Z"}}


async def test_a_subscription_that_is_gone_is_not_behind() -> None:
    process = Process()
    process.durable["a"] = lag(1, 60.0)
    await process.after()
    process.durable.clear()
    assert await process.after() == {"a": None}


async def test_in_memory_channels_are_looked_at_while_something_happens_or_waits() -> None:
    process = Process()
    process.memory["m"], process.durable["d"] = lag(0, None), lag(0, None)
    await process.after()
    await process.after()
    assert process.looked_at == ["d"], "nothing has happened"
    process.events += 1
    process.memory["m"] = lag(1, 0.1)
    await process.after()
    assert process.looked_at == ["d", "m"]
    process.memory["m"] = lag(1, 10.1)
    assert list(await process.after()) == ["m"], "nothing has happened, but one waits"
    process.memory["m"] = lag(0, None)
    assert await process.after() == {"m": None}
    await process.after()
    assert process.looked_at == ["d"]


@pytest.mark.parametrize("count", [1, 19, 20, 21, 100])
async def test_many_are_told_together(count: int) -> None:
    process = Process()
    process.memory = {f"s{number}": lag(1, 60.0) for number in range(count)}
    assert len(await process.after()) == count
