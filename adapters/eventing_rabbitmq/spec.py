"""What users write in a RabbitmqChannel beyond what every channel has."""

from pydantic import Field

from eventing.resources.schema import Model

__all__ = ["RabbitmqChannelOwnSpec"]


class RabbitmqChannelOwnSpec(Model):
    """The queues."""

    queue_type: str | None = Field(
        None,
        alias="queueType",
        description=(
            "What the queue of each Subscription is: quorum, replicated over the nodes of a cluster, or classic, on one node. "
            "Default quorum. A queue is made so, and the field is immutable."
        ),
    )
