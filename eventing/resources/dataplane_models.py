"""What a DataPlane object holds."""

from pydantic import Field

from eventing.resources.schema import Int64, Model

__all__ = ["DataPlaneSpec", "DataPlaneStatus"]


class DataPlaneSpec(Model):
    """Which process this is."""

    instance: str | None = Field(None, description="One incarnation of the process; a restarted one has another.")


class Applied(Model):
    """The generation of one channel that is in force."""

    uid: str | None = Field(None, description="UID of the channel.")
    generation: Int64 | None = Field(None, description="Generation of the channel.")


class Behind(Model):
    """How far one Subscription is behind, as far as this process serves it."""

    subscription: str | None = Field(None, description="NAMESPACE/NAME of the Subscription.")
    events: Int64 | None = Field(None, description="How many events wait for it, where the back end can tell.")
    oldest: str | None = Field(None, description="When the oldest of them was stored.", json_schema_extra={"format": "date-time"})


class DataPlaneStatus(Model):
    """What the process has applied, and who is behind."""

    applied: dict[str, Applied] | None = Field(
        None,
        description="By channel, PLURAL.GROUP/NAMESPACE/NAME: what the process has applied.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},  # one owner; thousands of fields in managedFields help nobody
    )
    lag: dict[str, Behind] | None = Field(
        None,
        description="By uid, the Subscriptions whose oldest event has waited for 10 seconds or longer.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
