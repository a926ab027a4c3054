"""The shapes that kinds share (Knative's duck types): references, destinations, delivery options,
subscribers.
"""

from pydantic import Field

from eventing.resources.schema import Int32, Int64, Model

__all__ = [
    "AddressStatus",
    "Addressable",
    "AppliedEventPolicy",
    "Auth",
    "Condition",
    "DeliverySpec",
    "DeliveryStatus",
    "Destination",
    "KReference",
    "Status",
    "SubscriberSpec",
    "SubscriberStatus",
]

_DURATION = "an ISO 8601 duration, as in PT0.5S, PT2M or P1D"
_CA_CERTS = "Certificates of the authorities to trust for it, in PEM (RFC 7468)."


class KReference(Model):
    """A reference to an object, in the namespace of the object that holds it unless it says otherwise."""

    api_version: str | None = Field(None, alias="apiVersion", description="API version of the object.")
    kind: str | None = Field(None, description="Kind of the object.")
    name: str | None = Field(None, description="Name of the object.")
    namespace: str | None = Field(
        None, description="Namespace of the object; filled in with that of the object holding the reference."
    )
    group: str | None = Field(None, description="API group instead of apiVersion. Not supported yet: give apiVersion.")
    address: str | None = Field(None, description="Name of the one of its status.addresses to use.")


class Destination(Model):
    """Where events go: an addressable object, a URI, or a URI relative to the address of an object."""

    ref: KReference | None = Field(None, description="An object that has an address.")
    uri: str | None = Field(
        None,
        description="An absolute URL with a host; or, beside ref, one relative to the object's address.",
    )
    ca_certs: str | None = Field(None, alias="CACerts", description=_CA_CERTS)
    audience: str | None = Field(None, description="OIDC audience, where the object's address does not name it. Not used yet.")


class DeliverySpec(Model):
    """How events are delivered and what happens to those that cannot be."""

    dead_letter_sink: Destination | None = Field(
        None, alias="deadLetterSink", description="Where events go that could not be delivered."
    )
    retry: Int32 | None = Field(
        None,
        description="How many times to try again after the first attempt; 0 disables retries. Default 5.",
    )
    timeout: str | None = Field(None, description=f"How long one attempt may take: {_DURATION}; more than 0. Default PT30S.")
    backoff_policy: str | None = Field(
        None,
        alias="backoffPolicy",
        description="How the wait between attempts grows: linear or exponential. Default exponential.",
    )
    backoff_delay: str | None = Field(
        None,
        alias="backoffDelay",
        description=f"The wait that backoffPolicy multiplies: {_DURATION}. Default PT0.5S.",
    )
    retry_after_max: str | None = Field(
        None,
        alias="retryAfterMax",
        description="Upper bound on the wait that a Retry-After header may ask for (429 and 503): "
        f"{_DURATION}. PT0S ignores the header. Default PT5M.",
    )
    format: str | None = Field(
        None, description="Content mode of what is sent: json (structured) or binary. Default: as it came."
    )


class Addressable(Model):
    """An address that takes events."""

    name: str | None = Field(None, description="Name of the address, as http or https.")
    url: str | None = Field(None, description="URL to send events to.")
    ca_certs: str | None = Field(None, alias="CACerts", description=_CA_CERTS)
    audience: str | None = Field(None, description="OIDC audience of the address.")


class Condition(Model):
    """One aspect of the object's state."""

    type: str = Field(description="What it speaks about.")
    status: str = Field(description="True, False or Unknown.")
    severity: str | None = Field(None, description="Absent (it gates Ready), Warning or Info.")
    reason: str | None = Field(None, description="Why, in one word for programs.")
    message: str | None = Field(None, description="Why, for people.")
    last_transition_time: str | None = Field(None, alias="lastTransitionTime", description="When the condition last changed.")


class Status(Model):
    """What every kind's status has."""

    observed_generation: Int64 | None = Field(
        None, alias="observedGeneration", description="The generation that the status speaks of."
    )
    conditions: list[Condition] | None = Field(None, description="The state, aspect by aspect, sorted by type.")
    annotations: dict[str, str] | None = Field(None, description="More that the controller has to say.")


class Auth(Model):
    """OIDC identity. Not used yet."""

    service_account_name: str | None = Field(
        None, alias="serviceAccountName", description="The service account that stands for the object."
    )
    service_account_names: list[str] | None = Field(
        None, alias="serviceAccountNames", description="The service accounts that stand for it, where there are several."
    )


class AppliedEventPolicy(Model):
    """An EventPolicy in force."""

    api_version: str | None = Field(None, alias="apiVersion", description="API version of the policy.")
    name: str | None = Field(None, description="Name of the policy.")


class AddressStatus(Model):
    """Where the object takes events."""

    address: Addressable | None = Field(None, description="Where to send events to.")
    addresses: list[Addressable] | None = Field(None, description="All addresses, the preferred one first.")


class DeliveryStatus(Model):
    """Where undeliverable events go, resolved."""

    dead_letter_sink_uri: str | None = Field(
        None, alias="deadLetterSinkUri", description="URI of the dead-letter sink, resolved."
    )
    dead_letter_sink_ca_certs: str | None = Field(None, alias="deadLetterSinkCACerts", description=_CA_CERTS)
    dead_letter_sink_audience: str | None = Field(
        None, alias="deadLetterSinkAudience", description="OIDC audience of the dead-letter sink."
    )


class SubscriberSpec(Model):
    """One subscriber of a channel, everything about it resolved. Written by the mesh from a Subscription."""

    name: str | None = Field(None, description="Name of the Subscription.")
    uid: str | None = Field(None, description="UID of the Subscription.")
    generation: Int64 | None = Field(None, description="Generation of the Subscription that the entry reflects.")
    subscriber_uri: str | None = Field(None, alias="subscriberUri", description="Where events are delivered.")
    subscriber_ca_certs: str | None = Field(None, alias="subscriberCACerts", description=_CA_CERTS)
    subscriber_audience: str | None = Field(None, alias="subscriberAudience", description="OIDC audience of the subscriber.")
    reply_uri: str | None = Field(None, alias="replyUri", description="Where the events go that it answers with.")
    reply_ca_certs: str | None = Field(None, alias="replyCACerts", description=_CA_CERTS)
    reply_audience: str | None = Field(None, alias="replyAudience", description="OIDC audience of replyUri.")
    delivery: DeliverySpec | None = Field(None, description="How events are delivered to it.")
    auth: Auth | None = Field(None, description="OIDC identity of the Subscription. Not used yet.")
    annotations: dict[str, str] | None = Field(
        None,
        description="The Subscription's annotations eventing-mesh.dev/…: options of this mesh.",
    )


class SubscriberStatus(Model):
    """Whether events reach one subscriber."""

    uid: str | None = Field(None, description="UID of the Subscription.")
    observed_generation: Int64 | None = Field(
        None,
        alias="observedGeneration",
        description="Generation of the Subscription that the entry speaks of.",
    )
    ready: str | None = Field(
        None,
        description="True once every event accepted from now on is due to it; else False or Unknown.",
    )
    message: str | None = Field(None, description="Why it is not ready.")
    auth: Auth | None = Field(None, description="OIDC identity of the Subscription. Not used yet.")
