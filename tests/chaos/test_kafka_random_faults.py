"""Random faults of broker, connections and processes, one after the other, while events come in and Subscriptions change."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eventing.testing.proxy import TcpProxy
from tests.chaos.kafka_rig import KafkaRig, kafka_rig
from tests.support.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


class Faults:
    """What may happen. Each returns when the fault is over, which is not when everything has recovered from it."""

    def __init__(self, rig: KafkaRig, broker: KafkaBroker, proxy: TcpProxy, workers: int) -> None:
        self._rig = rig
        self._broker = broker
        self._proxy = proxy
        self._workers = workers

    async def one(self) -> str:
        """One of them; its name."""
        fault: Callable[[], Awaitable[None]] = self._rig.rand.choice(
            [
                self.broker_killed,
                self.broker_frozen,
                self.connections_cut,
                self.connection_cut_within,
                self.half_open,
                self.data_plane_killed,
                self.data_plane_killed,
                self.data_plane_replaced,
                self.control_killed,
                self.subscriptions_change,
            ]
        )
        self._rig.fault()
        await fault()
        self._rig.fault()
        return fault.__name__

    async def broker_killed(self) -> None:
        await asyncio.to_thread(self._broker.kill)
        await asyncio.sleep(self._rig.rand.random() * 2)
        await asyncio.to_thread(self._broker.start)

    async def broker_frozen(self) -> None:
        await asyncio.to_thread(self._broker.pause)
        await asyncio.sleep(self._rig.rand.random() * 8)
        await asyncio.to_thread(self._broker.resume)

    async def connections_cut(self) -> None:
        for _ in range(self._rig.rand.randint(1, 3)):
            self._proxy.cut()
            await asyncio.sleep(self._rig.rand.random() * 0.3)

    async def connection_cut_within(self) -> None:
        self._proxy.cut_after(self._rig.rand.randint(1, 50_000))

    async def half_open(self) -> None:
        self._proxy.half_open()
        await asyncio.sleep(self._rig.rand.random() * 5)
        await self._proxy.resume()

    async def data_plane_killed(self) -> None:
        await self._rig.signal_data_plane(signal.SIGKILL, self._workers)

    async def data_plane_replaced(self) -> None:
        await self._rig.signal_data_plane(signal.SIGTERM, self._workers)

    async def control_killed(self) -> None:
        for pid in await asyncio.to_thread(self._rig.mesh.pids, "Control"):
            os.kill(pid, signal.SIGKILL)

    async def subscriptions_change(self) -> None:
        await self._rig.changes.random()


async def test_one_after_the_other(tmp_path: Path, private_kafka: Callable[[], KafkaBroker], seed: int) -> None:
    broker = private_kafka()
    await asyncio.to_thread(broker.start)
    async with broker.proxy() as proxy:
        workers = 1 + seed % 2
        arguments = [f"--workers={workers}"] if workers > 1 else []
        async with kafka_rig(tmp_path / "data", f"127.0.0.1:{proxy.port}", seed, *arguments) as rig:
            await rig.subscribe()
            faults = Faults(rig, broker, proxy, workers)
            async with rig.load():
                for _ in range(rig.rand.randint(2, 4)):
                    await rig.traffic.until(rig.rand.randint(10, 80))
                    print(f"{len(rig.traffic.accepted)} accepted, then {await faults.one()}")
                await rig.traffic.until(50)
            ends = await rig.balance(drops=("SubscriptionDeleted",))
            assert ends["delivered"] >= 100
            assert rig.traffic.statuses <= {202, 503}
            await rig.stop()
