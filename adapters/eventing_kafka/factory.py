"""What the mesh gets from this back end: its kind, its provision half, its channels.

The kind needs no Kafka client. Where none is installed, channels of the kind can be made and say what is missing.
"""

from importlib.util import find_spec
from typing import Final

from eventing.channels import BackEndSettings, Channel, ChannelConditions, ChannelHost, Configuration, Provisioner
from eventing.resources.kinds import Kind, Object
from eventing_kafka.names import CONFIG_MAP, SUBSCRIPTION_OPTIONS
from eventing_kafka.settings import bootstrap_servers

__all__ = ["KafkaChannelFactory"]

_MISSING: Final = "the Kafka client is not installed; run: pip install 'eventing-mesh[kafka]'"


class KafkaChannelFactory:
    """The factory named by the entry point. The kind's schema, the client and the channel are imported when first asked for."""

    name = "kafka"
    external = True  # topics and consumer groups
    shared = True
    config_map = CONFIG_MAP
    options = SUBSCRIPTION_OPTIONS
    conditions = ChannelConditions(
        provision=("ConfigParsed", "TopicReady"),
        served=("DataPlaneAvailable", "ProbeSucceeded"),
        unserved_reason="Data plane not available",  # Knative's words
        always=("ConfigMapUpdated",),
    )

    @property
    def missing(self) -> str:
        """What to do before channels can be opened; "" where everything is here."""
        return "" if find_spec("aiokafka") else _MISSING

    @property
    def kind(self) -> Kind:
        from eventing_kafka.kind import KAFKA_CHANNEL

        return KAFKA_CHANNEL

    def configuration(self, address: str) -> Configuration:
        return Configuration({"bootstrap.servers": ",".join(bootstrap_servers(address))})

    def provisioner(self, settings: BackEndSettings) -> Provisioner:
        from eventing_kafka.provisioner import KafkaProvisioner

        return KafkaProvisioner(settings)

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        from eventing_kafka.channel import KafkaChannel

        return KafkaChannel(channel, host)
