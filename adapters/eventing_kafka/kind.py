"""KafkaChannel, `messaging.knative.dev/v1beta1`: Knative's own kind, so that its manifests apply unchanged."""

import re
from typing import TYPE_CHECKING, Any, Final

from eventing.resources.channelable import AGE_COLUMN, READY_COLUMNS, channelable_kind
from eventing.resources.duration import parse_duration
from eventing.resources.fielderror import FieldErrors
from eventing.resources.immutable import GoField, immutable_errors
from eventing.resources.kinds import Admission, Column, Object
from eventing_kafka.names import EXTERNAL_TOPIC_ANNOTATION, external_topic

if TYPE_CHECKING:
    from eventing.resources.schema import Model

__all__ = ["KAFKA_CHANNEL", "is_topic"]

DEFAULTS: Final = {"numPartitions": 1, "replicationFactor": 1, "retentionDuration": "PT168H"}
_LARGEST: Final = {"numPartitions": 2**31 - 1, "replicationFactor": 2**15 - 1}
_SPEC: Final = GoField(
    "spec",
    "{v1beta1.KafkaChannelSpec}",
    fields=(
        GoField("numPartitions", "NumPartitions"),
        GoField("replicationFactor", "ReplicationFactor"),
        GoField("retentionDuration", "RetentionDuration"),
    ),
)
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_NO_TOPIC: Final = "expected the name of a topic: up to 249 letters, digits, '.', '_' and '-'"


def is_topic(name: str) -> bool:
    """Whether Kafka allows a topic of that name."""
    return _TOPIC.fullmatch(name) is not None


def _own_spec() -> "type[Model]":
    from eventing_kafka.spec import KafkaChannelOwnSpec  # pydantic, which the data plane does not load

    return KafkaChannelOwnSpec


def _default(obj: Object, _admission: Admission) -> None:
    spec = obj["spec"] = obj.get("spec") or {}
    for field, value in DEFAULTS.items():
        # 0 and "" are what a Go program sends for what it does not set.
        if not spec.get(field):
            spec[field] = value


def _errors(obj: Object, old: Object | None, _admission: Admission) -> FieldErrors:
    spec: dict[str, Any] = {**DEFAULTS, **(obj.get("spec") or {})}
    errors = FieldErrors()
    for field, largest in _LARGEST.items():
        if not 0 < spec[field] <= largest:
            errors += FieldErrors.invalid(spec[field], field)
    if not _is_retention(spec["retentionDuration"]):
        errors += FieldErrors.invalid(spec["retentionDuration"], "retentionDuration")
    errors = errors.via("spec")
    topic, before = external_topic(obj), external_topic(old) if old is not None else None
    where = f"metadata.annotations.[{EXTERNAL_TOPIC_ANNOTATION}]"
    if topic and not is_topic(topic):
        errors += FieldErrors.invalid(topic, where, _NO_TOPIC)
    if before is not None and topic != before:
        # Knative lets it through, and the events in the other topic out of sight.
        errors += FieldErrors.of("Immutable fields changed (-old +new)", where, details=f'\t-: "{before}"\n\t+: "{topic}"\n')
    if old is not None:
        was = old.get("spec") or {}
        if not was.get("retentionDuration"):
            was = {**was, "retentionDuration": spec["retentionDuration"]}  # older than the field
        errors += immutable_errors(_SPEC, was, spec)
    return errors


def _is_retention(text: str) -> bool:
    try:
        return parse_duration(text) >= 0
    except ValueError:
        return False


KAFKA_CHANNEL = channelable_kind(
    kind="KafkaChannel",
    plural="kafkachannels",
    version="v1beta1",
    short_names=("kc",),
    description="A KafkaChannel keeps events in a topic of Apache Kafka and hands each to all its subscribers.",
    extra_spec_model=_own_spec,
    columns=(*READY_COLUMNS, Column("URL", ".status.address.url"), AGE_COLUMN),
    scoped=True,
    default=_default,
    errors=_errors,
)
