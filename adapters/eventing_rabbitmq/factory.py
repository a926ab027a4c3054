"""What the mesh gets from this back end: its kind, its provision half, its channels.

The kind needs no RabbitMQ client. Where none is installed, channels of the kind can be made and say what is missing.
"""

from importlib.util import find_spec
from typing import Final

from eventing.channels import BackEndSettings, Channel, ChannelConditions, ChannelHost, Provisioned, Provisioner
from eventing.resources.kinds import Kind, Object
from eventing.resources.subscribers import Subscriber
from eventing_rabbitmq.names import CONFIG_MAP

__all__ = ["RabbitmqChannelFactory"]

_MISSING: Final = "the RabbitMQ client is not installed; run: pip install 'eventing-mesh[rabbitmq]'"


class NotInstalled:
    """The provision half without a client: says so, and leaves RabbitMQ alone."""

    async def ensure(self, channel: Object) -> Provisioned:
        return Provisioned(False, "BackEndNotInstalled", _MISSING)

    async def remove(self, channel: Object) -> None:
        """Nothing was made."""

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        return Provisioned(False, "BackEndNotInstalled", _MISSING)

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Nothing was made."""

    async def aclose(self) -> None:
        """Nothing is open."""


class RabbitmqChannelFactory:
    """The factory named by the entry point. The kind's schema, the client and the channel are imported when first asked for."""

    name = "rabbitmq"
    external = True  # exchanges and queues
    shared = True
    config_map = CONFIG_MAP
    options: frozenset[str] = frozenset()
    conditions = ChannelConditions(provision=("ExchangeReady",))

    @property
    def missing(self) -> str:
        """What to do before channels can be opened; "" where everything is here."""
        return "" if find_spec("aio_pika") else _MISSING

    @property
    def kind(self) -> Kind:
        from eventing_rabbitmq.kind import RABBITMQ_CHANNEL

        return RABBITMQ_CHANNEL

    def provisioner(self, settings: BackEndSettings) -> Provisioner:
        return NotInstalled()

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        from eventing_rabbitmq.channel import RabbitmqChannel

        return RabbitmqChannel(channel, host)
