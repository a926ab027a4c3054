"""What the mesh gets from this back end: its kind, its (empty) provision half, its channels."""

from eventing.channels import BackEndSettings, Channel, ChannelConditions, ChannelHost, Configuration, Provisioned, Provisioner
from eventing.resources.kinds import Kind, Object
from eventing.resources.subscribers import Subscriber

__all__ = ["MemoryChannelFactory"]


class MemoryProvisioner:
    """Nothing to make: the channel exists where a data-plane process has applied its object."""

    async def ensure(self, channel: Object) -> Provisioned:
        return Provisioned(ready=True)

    async def remove(self, channel: Object) -> None:
        """Nothing was made."""

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        return Provisioned(ready=True)

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Nothing was made."""

    async def aclose(self) -> None:
        """Nothing is open."""


class MemoryChannelFactory:
    """The factory named by the entry point. The kind's schema and the channel are imported when first asked for: the data
    plane needs no schema, the control plane no channel."""

    name = "memory"
    external = False  # nothing is left outside the mesh, so its channels need no finalizer
    shared = False  # what one process holds no other sees
    config_map = ""
    options: frozenset[str] = frozenset()
    missing = ""
    conditions = ChannelConditions()

    @property
    def kind(self) -> Kind:
        from eventing_memory.kind import IN_MEMORY_CHANNEL

        return IN_MEMORY_CHANNEL

    def configuration(self, address: str) -> Configuration:
        raise ValueError("in-memory channels are in the mesh itself")

    def provisioner(self, settings: BackEndSettings) -> Provisioner:
        return MemoryProvisioner()

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        from eventing_memory.channel import MemoryChannel

        return MemoryChannel(channel, budget=host.budget, clock=host.clock)
