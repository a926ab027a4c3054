"""Whether a data-plane process is ready, and what people should know where it is not quite."""

import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final

from eventing.channels import Budget
from eventing.dataplane.table import ChannelTable
from eventing.kube import KubeClient
from eventing.observe.health import Check, Health, State
from eventing.observe.stalls import loop_check
from eventing.observe.traces import Tracing

__all__ = ["Phase", "Readiness"]

_SHOWN: Final = 3  # channels that cannot be applied


class Phase(Enum):
    """Where in its life the process is."""

    STARTING = "starting: the channels are not known yet"
    SERVING = ""
    STOPPING = "stopping: no new events are taken"


class Readiness:
    """Ready are those that take events. Without the control plane a data plane stays ready: it delivers by what it knows."""

    def __init__(
        self,
        *,
        table: ChannelTable,
        budget: Budget,
        client: KubeClient,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = Phase.STARTING
        self._table = table
        self._budget = budget
        self._client = client
        self._tracing = tracing
        self._clock = clock
        self.health = Health(live=lambda: [loop_check()], ready=self._checks)

    def _checks(self) -> Iterator[Check]:
        serving = self.phase is Phase.SERVING
        yield Check("ingress", State.OK if serving else State.FAILED, self.phase.value)
        yield self._channels()
        yield self._control()
        yield self._memory()
        if self._tracing is not None:
            yield self._spans(self._tracing)

    def _channels(self) -> Check:
        table = self._table
        if self.phase is Phase.STARTING:
            return Check("channels", State.FAILED, "not listed yet")
        if table.unapplied:
            some = "; ".join(f"{key}: {why}" for key, why in list(table.unapplied.items())[:_SHOWN])
            return Check("channels", State.DEGRADED, f"{len(table.unapplied)} cannot be applied as they stand: {some}")
        if unserved := table.unserved:
            some = ", ".join(unserved[:_SHOWN]) + (", …" if len(unserved) > _SHOWN else "")
            return Check("channels", State.DEGRADED, f"{len(unserved)} need a mesh with one data-plane process: {some}")
        return Check("channels", State.OK, f"{table.channels} in force, {table.subscriptions} subscriptions")

    def _control(self) -> Check:
        outage = self._client.outage
        if outage is None:
            return Check("control")
        lasts = f"{self._clock() - outage.since:.0f} s"
        text = f"the API server has not answered for {lasts} ({outage.error}); events are taken and delivered by what is known"
        return Check("control", State.DEGRADED, text)

    @staticmethod
    def _spans(tracing: Tracing) -> Check:
        lost = tracing.counts["failed"] + tracing.counts["dropped"]
        if tracing.fault:
            return Check("spans", State.DEGRADED, f"they are not exported, {lost} are lost: {tracing.fault}")
        return Check("spans", State.OK, f"{tracing.counts['exported']} exported, {lost} lost")

    def _memory(self) -> Check:
        used, limit = self._budget.recount(), self._budget.limit
        text = f"{used >> 20} of {limit >> 20} MiB"
        if used < limit * 0.9:
            return Check("memory", State.OK, text)
        return Check("memory", State.DEGRADED, f"{text} are held for slow subscribers: soon producers are answered 503")
