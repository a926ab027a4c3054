"""What users write in a backing channel of any kind, and what they read in its status."""

from typing import Any

from pydantic import Field, create_model

from eventing.resources.duck import (
    AddressStatus,
    AppliedEventPolicy,
    DeliverySpec,
    DeliveryStatus,
    KReference,
    Status,
    SubscriberSpec,
    SubscriberStatus,
)
from eventing.resources.schema import Model, object_schema

__all__ = ["ChannelableSpec", "ChannelableStatus", "channelable_schema"]


class ChannelableSpec(Model):
    """What is wanted of the channel."""

    subscribers: list[SubscriberSpec] | None = Field(
        None,
        description="Who gets the channel's events. Written by the mesh from Subscriptions, not by users.",
    )
    delivery: DeliverySpec | None = Field(
        None, description="How events are delivered to subscribers whose Subscription says nothing about it."
    )


class ChannelableStatus(Status, AddressStatus, DeliveryStatus):
    """What has become of the channel."""

    subscribers: list[SubscriberStatus] | None = Field(None, description="Whether events reach each subscriber.")
    dead_letter_channel: KReference | None = Field(
        None,
        alias="deadLetterChannel",
        description="Set by channels that keep undeliverable events themselves.",
    )
    policies: list[AppliedEventPolicy] | None = Field(None, description="The EventPolicies in force.")


def channelable_schema(kind: str, description: str, extra_spec_model: type[Model] | None) -> dict[str, Any]:
    """The schema of a backing channel kind whose spec has the fields of `extra_spec_model` too."""
    spec_bases = (extra_spec_model, ChannelableSpec) if extra_spec_model else (ChannelableSpec,)
    spec = create_model(f"{kind}Spec", __base__=spec_bases, __doc__=ChannelableSpec.__doc__)
    return object_schema(description, spec=spec, status=ChannelableStatus)
