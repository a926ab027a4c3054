"""The Kafka channel: `kind: KafkaChannel`, found through the entry point `eventing.channels: kafka`."""

from eventing_kafka.factory import KafkaChannelFactory

__all__ = ["factory"]

factory = KafkaChannelFactory()
