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


class DataPlaneStatus(Model):
    """What the process has applied."""

    applied: dict[str, Applied] | None = Field(
        None,
        description="By channel, PLURAL.GROUP/NAMESPACE/NAME: what the process has applied.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},  # one owner; thousands of fields in managedFields help nobody
    )
