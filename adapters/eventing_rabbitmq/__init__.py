"""The RabbitMQ channel: `kind: RabbitmqChannel`, found through the entry point `eventing.channels: rabbitmq`."""

from eventing_rabbitmq.factory import RabbitmqChannelFactory

__all__ = ["factory"]

factory = RabbitmqChannelFactory()
