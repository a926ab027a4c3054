"""Channel and Subscription of `messaging.knative.dev/v1`."""

import copy
from functools import lru_cache
from typing import Any, Final

import yaml
from pydantic import Field

from eventing.errors import Fault, InvalidObjectError
from eventing.resources.channelable import (
    ADDRESSABLE_COLUMNS,
    AGE_COLUMN,
    CHANNELABLE_CATEGORIES,
    CHANNELABLE_LABELS,
    CRD_INSTALL,
    READY_COLUMNS,
    SUBSCRIBABLE_ANNOTATION,
    annotate,
    journal_data_errors,
)
from eventing.resources.channelable_models import ChannelableSpec, ChannelableStatus
from eventing.resources.destinations import (
    default_delivery,
    default_destination,
    delivery_errors,
    destination_errors,
    reference_errors,
)
from eventing.resources.duck import (
    Auth,
    DeliverySpec,
    DeliveryStatus,
    Destination,
    KReference,
    Status,
)
from eventing.resources.fielderror import FieldErrors
from eventing.resources.immutable import CHANNEL_SPEC, SUBSCRIPTION_SPEC, immutable_errors
from eventing.resources.kinds import Admission, Column, Kind, Object
from eventing.resources.schema import Int64, Model, object_schema
from eventing.resources.subscribers import (
    CONCURRENCY_ANNOTATION,
    CONCURRENCY_LIMIT,
    GROUP_ANNOTATION,
    ORDER_ANNOTATION,
    ORDERS,
)

__all__ = ["CHANNEL", "EVENTING_KINDS", "SUBSCRIPTION"]

_DEFAULTS_NAMESPACE = "knative-eventing"
_DEFAULTS_CONFIG_MAP = "default-ch-webhook"
_DEFAULTS_KEY = "default-ch-config"
_ONLY_OWN_NAMESPACE = "only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled"
_SHIPPED_DEFAULT = {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}


class ChannelTemplateSpec(Model):
    """The backing channel to make."""

    api_version: str | None = Field(None, alias="apiVersion", description="API version of the backing channel.")
    kind: str | None = Field(None, description="Kind of the backing channel: InMemoryChannel, KafkaChannel, ….")
    spec: dict[str, Any] | None = Field(None, description="Spec of the backing channel.")


class ChannelSpec(ChannelableSpec):
    """What is wanted of the channel."""

    channel_template: ChannelTemplateSpec | None = Field(
        None,
        alias="channelTemplate",
        description="The backing channel that keeps the events. Where it is left out, the ConfigMap "
        "knative-eventing/default-ch-webhook decides, else InMemoryChannel.",
    )


class ChannelStatus(ChannelableStatus):
    """What has become of the channel."""

    channel: KReference | None = Field(None, description="The backing channel.")


class SubscriptionSpec(Model):
    """Which channel's events go where."""

    channel: KReference | None = Field(
        None, description="The channel, in the same namespace: apiVersion, kind and name. Immutable."
    )
    subscriber: Destination | None = Field(None, description="Where the channel's events are delivered.")
    reply: Destination | None = Field(
        None, description="Where the events go that the subscriber answers with; dropped where there is none."
    )
    delivery: DeliverySpec | None = Field(
        None,
        description="How events are delivered, in place of the channel's own (except its dead-letter sink).",
    )


class PhysicalSubscription(DeliveryStatus):
    """The Subscription's destinations, resolved."""

    subscriber_uri: str | None = Field(None, alias="subscriberUri", description="Where events are delivered.")
    subscriber_ca_certs: str | None = Field(None, alias="subscriberCACerts", description="CA certificates, PEM.")
    subscriber_audience: str | None = Field(None, alias="subscriberAudience", description="OIDC audience.")
    reply_uri: str | None = Field(None, alias="replyUri", description="Where answers go.")
    reply_ca_certs: str | None = Field(None, alias="replyCACerts", description="CA certificates, PEM.")
    reply_audience: str | None = Field(None, alias="replyAudience", description="OIDC audience.")


class SubscriptionLag(Model):
    """How far the Subscription is behind. Within 20 seconds, and only of events that wait for longer than 10:
    `eventing why` and the metrics have the figures of the moment."""

    events: Int64 | None = Field(None, description="How many events wait; absent where the back end cannot tell.")
    oldest: str | None = Field(None, description="When the oldest of them was stored.", json_schema_extra={"format": "date-time"})


class SubscriptionStatus(Status):
    """What has become of the Subscription."""

    physical_subscription: PhysicalSubscription | None = Field(
        None, alias="physicalSubscription", description="The destinations, resolved."
    )
    auth: Auth | None = Field(None, description="OIDC identity of the Subscription. Not used yet.")
    lag: SubscriptionLag | None = Field(None, description="How far it is behind.")


def _default_channel(obj: Object, admission: Admission) -> None:
    annotate(obj, SUBSCRIBABLE_ANNOTATION, "v1")
    spec = obj["spec"] = obj.get("spec") or {}
    namespace = obj["metadata"].get("namespace", "")
    if spec.get("channelTemplate") is None:
        spec["channelTemplate"] = _default_template(namespace, admission)
    default_delivery(spec.get("delivery"), namespace)


def _default_template(namespace: str, admission: Admission) -> Object:
    """The template of the ConfigMap that users edit; the shipped default where it says nothing."""
    text = admission.config_map(_DEFAULTS_NAMESPACE, _DEFAULTS_CONFIG_MAP).get(_DEFAULTS_KEY)
    if not text:
        return dict(_SHIPPED_DEFAULT)
    where = f"ConfigMap {_DEFAULTS_NAMESPACE}/{_DEFAULTS_CONFIG_MAP}, key {_DEFAULTS_KEY}"
    try:
        config = _parsed(text)
    except yaml.YAMLError as error:
        raise _no_default(f"{where} is not YAML: {error}") from error
    if config is None:
        return dict(_SHIPPED_DEFAULT)
    if not isinstance(config, dict):
        raise _no_default(f"{where}: clusterDefault and namespaceDefaults are expected")
    by_namespace = config.get("namespaceDefaults") or {}
    if not isinstance(by_namespace, dict):
        raise _no_default(f"{where}: namespaceDefaults is no map of namespaces")
    name = f"namespaceDefaults.{namespace}" if by_namespace.get(namespace) else "clusterDefault"
    template = by_namespace.get(namespace) or config.get("clusterDefault")
    if template is None:
        return dict(_SHIPPED_DEFAULT)
    if not isinstance(template, dict) or not all(isinstance(template.get(field), str) for field in ("apiVersion", "kind")):
        raise _no_default(f"{where}: {name} needs apiVersion and kind")
    return {key: copy.deepcopy(template[key]) for key in ("apiVersion", "kind", "spec") if template.get(key)}


def _no_default(why: str) -> InvalidObjectError:
    return InvalidObjectError(
        f"cannot choose a default channel: spec.channelTemplate\n{why}", [Fault("spec.channelTemplate", why)]
    )


@lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    """The ConfigMap's YAML; parsed once, since every Channel that is made asks for it."""
    return yaml.safe_load(text)


def _validate_channel(obj: Object, old: Object | None, _admission: Admission) -> None:
    spec = obj.get("spec") or {}
    errors = FieldErrors()
    template = spec.get("channelTemplate")
    if template is None:
        errors += FieldErrors.missing("channelTemplate")
    else:
        for field in ("kind", "apiVersion"):
            if not template.get(field):
                errors += FieldErrors.missing(field).via("channelTemplate")
    if spec.get("subscribers"):
        errors += FieldErrors.disallowed("subscribers").via("subscribable")
    if spec.get("delivery"):
        errors += delivery_errors(spec["delivery"], obj["metadata"].get("namespace", "")).via("delivery")
    errors = errors.via("spec") + journal_data_errors(obj)
    if old is not None:
        errors += immutable_errors(CHANNEL_SPEC, old.get("spec") or {}, spec)
    errors.raise_if_any()


def _default_subscription(obj: Object, _admission: Admission) -> None:
    spec = obj.get("spec") or {}
    namespace = obj["metadata"].get("namespace", "")
    default_destination(spec.get("subscriber"), namespace)
    default_destination(spec.get("reply"), namespace)
    default_delivery(spec.get("delivery"), namespace)


def _validate_subscription(obj: Object, old: Object | None, _admission: Admission) -> None:
    spec = obj.get("spec") or {}
    errors = _subscription_spec_errors(spec).via("spec") + _option_errors(obj)
    if old is not None:
        errors += _group_errors(obj, old)
        errors += immutable_errors(SUBSCRIPTION_SPEC, old.get("spec") or {}, spec)
    errors.raise_if_any()


def _subscription_spec_errors(spec: Object) -> FieldErrors:
    channel = spec.get("channel")
    if not channel:
        return FieldErrors.missing("channel", details="the Subscription must reference a channel")
    errors = reference_errors(channel).via("channel")
    if channel.get("namespace"):
        errors += FieldErrors.disallowed("namespace", details=_ONLY_OWN_NAMESPACE).via("channel")
    if not spec.get("subscriber"):
        errors += FieldErrors.missing("subscriber", details="the Subscription must reference a subscriber")
    for field in ("subscriber", "reply"):
        if spec.get(field):
            errors += destination_errors(spec[field]).via(field)
    if spec.get("delivery"):
        errors += delivery_errors(spec["delivery"]).via("delivery")
    return errors


def _option_errors(obj: Object) -> FieldErrors:
    annotations = obj["metadata"].get("annotations") or {}
    errors = FieldErrors()
    text = annotations.get(CONCURRENCY_ANNOTATION, "1")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= CONCURRENCY_LIMIT):
        errors += FieldErrors.invalid(
            text,
            f"metadata.annotations.[{CONCURRENCY_ANNOTATION}]",
            f"expected a number from 1 (one delivery at a time, in order) to {CONCURRENCY_LIMIT}",
        )
    order = annotations.get(ORDER_ANNOTATION, ORDERS[0])
    if order not in ORDERS:
        errors += FieldErrors.invalid(order, f"metadata.annotations.[{ORDER_ANNOTATION}]", f"expected one of {', '.join(ORDERS)}")
    return errors


def _group_errors(obj: Object, old: Object) -> FieldErrors:
    """The place of a Subscription is in its consumer group: in another one it would be another Subscription."""
    group, before = ((each["metadata"].get("annotations") or {}).get(GROUP_ANNOTATION, "") for each in (obj, old))
    if group == before:
        return FieldErrors()
    details = f'\t-: "{before}"\n\t+: "{group}"\ndelete the Subscription and make it again'
    return FieldErrors.of("Immutable fields changed (-old +new)", f"metadata.annotations.[{GROUP_ANNOTATION}]", details=details)


CHANNEL: Final = Kind(
    group="messaging.knative.dev",
    version="v1",
    kind="Channel",
    plural="channels",
    schema=object_schema(
        "A Channel keeps events and hands each to all its Subscriptions. It stands for a backing channel of "
        "the same name, made by its template.",
        spec=ChannelSpec,
        status=ChannelStatus,
    ),
    short_names=("ch",),
    categories=CHANNELABLE_CATEGORIES,
    columns=ADDRESSABLE_COLUMNS,
    labels=CHANNELABLE_LABELS,
    default=_default_channel,
    validate=_validate_channel,
)

SUBSCRIPTION: Final = Kind(
    group="messaging.knative.dev",
    version="v1",
    kind="Subscription",
    plural="subscriptions",
    schema=object_schema(
        "A Subscription delivers the events of a channel to a subscriber.",
        spec=SubscriptionSpec,
        status=SubscriptionStatus,
    ),
    short_names=("sub",),
    categories=("all", "knative", "messaging"),
    columns=(
        AGE_COLUMN,
        *READY_COLUMNS,
        Column("Lag", ".status.lag.events", "integer", priority=1, description="Events that wait, once one waits for 10 s."),
        Column("Oldest", ".status.lag.oldest", "date", priority=1, description="How long the oldest of them has waited."),
    ),
    labels=CRD_INSTALL,
    default=_default_subscription,
    validate=_validate_subscription,
)

EVENTING_KINDS: Final = (CHANNEL, SUBSCRIPTION)
