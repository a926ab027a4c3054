"""What users write in a KafkaChannel beyond what every channel has."""

from pydantic import Field

from eventing.resources.schema import Int32, Model

__all__ = ["KafkaChannelOwnSpec"]

_WHERE_ABSENT = "Made with the topic, and immutable."


class KafkaChannelOwnSpec(Model):
    """The topic."""

    num_partitions: Int32 | None = Field(
        None,
        alias="numPartitions",
        description=f"How many parts the topic has; events of a part are delivered in order. Default 1. {_WHERE_ABSENT}",
    )
    replication_factor: Int32 | None = Field(
        None,
        alias="replicationFactor",
        description=f"On how many brokers each event is kept. Default 1. {_WHERE_ABSENT}",
    )
    retention_duration: str | None = Field(
        None,
        alias="retentionDuration",
        description=f"How long Kafka keeps events, an ISO 8601 duration. Default PT168H, which is 7 days. {_WHERE_ABSENT}",
    )
