"""What the harnesses of all back ends outside the process do alike: one channel object, provisioned once, opened as often as asked."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from eventing.channels import BackEndSettings, Budget, Channel, ChannelHost, Order, Provisioner, channel_factories
from eventing.resources.kinds import Object
from eventing.testing.channel_harness import ChannelHarness, RecordingConsumer, Subscriber, subscription

__all__ = ["BrokerHarness"]


class BrokerHarness(ChannelHarness):
    """A channel of its own for each, gone with it. `settings` are what the provision half is set up with, `flow_settings` the flow
    half, where that goes another way."""

    kind: str

    def __init__(self, settings: BackEndSettings, spec: dict[str, Any], *, flow_settings: BackEndSettings | None = None) -> None:
        super().__init__(channel_factories()[self.back_end])
        self.settings = settings
        self.flow_settings = flow_settings or settings
        self.unprovisioned = False  # the test does it, or wants nothing there
        self.budget = Budget(1 << 30)
        self.opened: list[Channel] = []
        self.name = f"orders-{uuid.uuid4().hex[:12]}"
        self._provisioner = self.factory.provisioner(settings)
        self._channel: Object = {
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": "default", "uid": self.name},
            "spec": spec,
        }
        self._provisioned = False

    @property
    def channel(self) -> Object:
        return self._channel

    @property
    def provisioner(self) -> Provisioner:
        return self._provisioner

    async def open(self, process: str = "first") -> Channel:
        if not self._provisioned and not self.unprovisioned:
            made = await self.provisioner.ensure(self.channel)
            assert made.ready, made
            self._provisioned = True
            await self.provisioned()
        channel = self.factory.open(
            self.channel,
            ChannelHost(self.budget, time.monotonic, settings=self.flow_settings, process=process, receipts=process),
        )
        self.opened.append(channel)
        return channel

    async def provisioned(self) -> None:
        """What the channel needs has just been made."""

    async def subscribe(
        self, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE, annotations: Mapping[str, str] | None = None
    ) -> Subscriber:
        """A cursor of a subscription that is due from now on, or was before."""
        await self.provisioner.ensure_subscription(self.channel, subscription(uid, annotations))
        return self.attach(channel, uid, order, annotations)

    def attach(
        self, channel: Channel, uid: str = "uid-1", order: Order = Order.NONE, annotations: Mapping[str, str] | None = None
    ) -> Subscriber:
        """A cursor of one that is due already."""
        consumer = RecordingConsumer()
        return Subscriber(channel.attach(subscription(uid, annotations), consumer, order=order), consumer)

    async def fill(self, channel: Channel) -> bool:
        self.budget.limit = 0  # as if all channels together held as much as they may
        return True

    async def close_channels(self) -> None:
        for channel in self.opened:
            await channel.aclose(time.monotonic() + 10.0)
