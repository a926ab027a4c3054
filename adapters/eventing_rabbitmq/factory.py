"""What the mesh gets from this back end: its kind, its provision half, its channels.

The kind needs no RabbitMQ client. Where none is installed, channels of the kind can be made and say what is missing.
"""

from importlib.util import find_spec
from typing import Final

from eventing.back_end_settings import SECRET_NAME
from eventing.channels import BackEndSettings, Channel, ChannelConditions, ChannelHost, Configuration, Provisioner
from eventing.resources.kinds import Kind, Object
from eventing_rabbitmq.names import CONFIG_MAP
from eventing_rabbitmq.url import read_url

__all__ = ["RabbitmqChannelFactory"]

_SECRET: Final = "rabbitmq-channel-up"  # noqa: S105 - where `eventing up --rabbitmq` puts the URL
_MISSING: Final = "the RabbitMQ client is not installed; run: pip install 'eventing-mesh[rabbitmq]'"


class RabbitmqChannelFactory:
    """The factory named by the entry point. The kind's schema, the client and the channel are imported when first asked for."""

    name = "rabbitmq"
    external = True  # exchanges and queues
    shared = True
    config_map = CONFIG_MAP
    options: frozenset[str] = frozenset()
    conditions = ChannelConditions(
        provision=("SecretReady", "ExchangeReady"),  # as in Knative's RabbitMQ broker
        served=("DataPlaneAvailable",),
        unserved_reason="DataPlaneNotAvailable",
        always=(),
    )

    @property
    def missing(self) -> str:
        """What to do before channels can be opened; "" where everything is here."""
        return "" if find_spec("pamqp") else _MISSING

    @property
    def kind(self) -> Kind:
        from eventing_rabbitmq.kind import RABBITMQ_CHANNEL

        return RABBITMQ_CHANNEL

    def configuration(self, address: str) -> Configuration:
        if "user" not in read_url(address):
            return Configuration({"url": address})
        return Configuration({SECRET_NAME: _SECRET}, _SECRET, {"url": address})

    def provisioner(self, settings: BackEndSettings) -> Provisioner:
        from eventing_rabbitmq.provisioner import RabbitmqProvisioner

        return RabbitmqProvisioner(settings)

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        from eventing_rabbitmq.channel import RabbitmqChannel

        return RabbitmqChannel(channel, host)
