"""The in-memory channel keeps the contract of the Channel port."""

import time
from collections.abc import AsyncIterator

import pytest

from eventing.channels import BackEndSettings, Budget, Channel, ChannelHost, Provisioner, channel_factories
from eventing.resources.kinds import Object
from eventing.testing.channel_harness import CLAUSES, FAULT_CLAUSES, ChannelHarness, clauses_of, event
from eventing.testing.channels import ChannelContract


class MemoryHarness(ChannelHarness):
    back_end = "memory"

    def __init__(self) -> None:
        super().__init__(channel_factories()["memory"])
        self._budget = Budget(1 << 30)
        self._opened: list[Channel] = []
        self._provisioner = self.factory.provisioner(BackEndSettings())

    async def open(self, process: str = "first") -> Channel:
        channel = self.factory.open(self.channel, ChannelHost(self._budget, time.monotonic, process=process, receipts=process))
        self._opened.append(channel)
        return channel

    @property
    def channel(self) -> Object:
        return {"metadata": {"name": "orders", "namespace": "default", "uid": "uid"}, "spec": {}}

    @property
    def provisioner(self) -> Provisioner:
        return self._provisioner

    async def stored(self) -> list[str]:
        """Walks the log's records from the cursor that lags most: nothing that publish or take go through."""
        (channel,) = self._opened
        cursors = channel._cursors.values()  # type: ignore[attr-defined]
        ids: list[str] = []
        place = min((cursor._place for cursor in cursors), key=lambda record: record.number).following if cursors else None
        while place is not None:
            ids.append(place.event.id)
            place = place.following
        return ids

    async def fill(self, channel: Channel) -> bool:
        self._budget.limit = self._budget.recount() + 2000
        channel.publish([event("fits")])
        return True

    async def aclose(self) -> None:
        for channel in self._opened:
            await channel.aclose(time.monotonic())


class TestMemoryChannel(ChannelContract):
    @pytest.fixture
    async def harness(self) -> AsyncIterator[ChannelHarness]:
        harness = MemoryHarness()
        yield harness
        await harness.aclose()


def test_every_clause_has_a_test_or_is_left_to_the_fault_tests() -> None:
    assert clauses_of(ChannelContract) | FAULT_CLAUSES == set(CLAUSES)


def test_no_subclass_overrides_a_clause() -> None:
    own = {name for name in vars(TestMemoryChannel) if name.startswith("test_")}
    assert not own & set(vars(ChannelContract))
