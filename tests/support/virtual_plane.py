"""A data plane and a sink in virtual time: seconds of back-off cost nothing, and nothing depends on a busy machine."""

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, Final

from eventing.testing.clock import VirtualClock
from eventing.testing.sinks import Received, Sink
from tests.support.data_plane import DataPlaneRig

__all__ = ["REPLY", "PatientSink", "run", "waits"]

Test = Callable[[DataPlaneRig, Sink], Awaitable[None]]
REPLY: Final = {"specversion": "1.0", "id": "r", "source": "/sub", "type": "reply"}


class PatientSink(Sink):
    """Waits long: virtual seconds cost nothing, and a busy machine spends many of them."""

    async def received(self, number: int, path: str | None = None, *, within: float = 500.0) -> list[Received]:
        return await super().received(number, path, within=within)


def run(test: Test, **options: Any) -> None:
    """Run a test with a data plane and a sink, both in virtual time. Jitter is off unless it is asked for."""
    clock = VirtualClock()

    async def main() -> None:
        async with PatientSink() as sink, DataPlaneRig(clock=clock, wall=clock.wall, **({"rand": lambda: 0.0} | options)) as mesh:
            await test(mesh, sink)

    clock.run(main())


def waits(requests: list[Received]) -> list[float]:
    """Seconds between the requests."""
    return [round(later.at - earlier.at, 2) for earlier, later in pairwise(requests)]
