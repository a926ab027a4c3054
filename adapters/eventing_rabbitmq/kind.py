"""RabbitmqChannel, `messaging.knative.dev/v1beta1`: a kind of our own. Knative had one of that name, long ago and otherwise."""

from typing import TYPE_CHECKING, Any, Final

from eventing.resources.channelable import AGE_COLUMN, READY_COLUMNS, channelable_kind
from eventing.resources.fielderror import FieldErrors
from eventing.resources.immutable import GoField, immutable_errors
from eventing.resources.kinds import Admission, Column, Object
from eventing_rabbitmq.names import CLASSIC, QUORUM, exchange_of, queue_name_room

if TYPE_CHECKING:
    from eventing.resources.schema import Model

__all__ = ["RABBITMQ_CHANNEL"]

_SPEC: Final = GoField("spec", "{v1beta1.RabbitmqChannelSpec}", fields=(GoField("queueType", "QueueType"),))


def _own_spec() -> "type[Model]":
    from eventing_rabbitmq.spec import RabbitmqChannelOwnSpec  # pydantic, which the data plane does not load

    return RabbitmqChannelOwnSpec


def _default(obj: Object, _admission: Admission) -> None:
    spec = obj["spec"] = obj.get("spec") or {}
    # "" is what a Go program sends for what it does not set.
    if not spec.get("queueType"):
        spec["queueType"] = QUORUM


def _errors(obj: Object, old: Object | None, _admission: Admission) -> FieldErrors:
    spec: dict[str, Any] = {"queueType": QUORUM, **(obj.get("spec") or {})}
    errors = FieldErrors()
    if spec["queueType"] not in {QUORUM, CLASSIC}:
        found = FieldErrors.invalid(spec["queueType"], "queueType", f"expected either '{QUORUM}' or '{CLASSIC}'")
        errors += found.via("spec")
    if old is not None:
        errors += immutable_errors(_SPEC, {"queueType": QUORUM, **(old.get("spec") or {})}, spec)
    elif queue_name_room(obj) < 0:
        errors += FieldErrors.invalid(
            obj["metadata"]["name"],
            "metadata.name",
            f"with the namespace it is too long for the names of RabbitMQ, which have up to 255 bytes: {exchange_of(obj)}",
        )
    return errors


RABBITMQ_CHANNEL = channelable_kind(
    kind="RabbitmqChannel",
    plural="rabbitmqchannels",
    version="v1beta1",
    short_names=("rmqc",),
    description="A RabbitmqChannel keeps events in RabbitMQ, in a queue for each of its Subscriptions.",
    extra_spec_model=_own_spec,
    columns=(*READY_COLUMNS, Column("URL", ".status.address.url"), AGE_COLUMN),
    scoped=True,
    default=_default,
    errors=_errors,
)
