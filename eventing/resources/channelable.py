"""What all backing channel kinds share: InMemoryChannel, KafkaChannel and those of third parties.

A back end's package makes its kind with `channelable_kind` and adds only what is its own. No pydantic here (see
`channelable_models`): the data plane imports this with every back end.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from eventing.resources.destinations import default_delivery, delivery_errors
from eventing.resources.fielderror import FieldErrors
from eventing.resources.immutable import SUBSCRIBERS, changes
from eventing.resources.kinds import Admission, Column, Kind, Object
from eventing.resources.lazy_schema import LazySchema
from eventing.resources.subscribers import JOURNAL_DATA_ANNOTATION

if TYPE_CHECKING:
    from eventing.resources.schema import Model

__all__ = [
    "ADDRESSABLE_COLUMNS",
    "CONTROLLER_USER",
    "SUBSCRIBABLE_ANNOTATION",
    "annotate",
    "channelable_kind",
    "journal_data_errors",
]

CONTROLLER_USER: Final = "system:serviceaccount:knative-eventing:eventing-controller"
SUBSCRIBABLE_ANNOTATION: Final = "messaging.knative.dev/subscribable"
SCOPE_ANNOTATION: Final = "eventing.knative.dev/scope"

READY_COLUMNS: Final = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
)
AGE_COLUMN: Final = Column("Age", ".metadata.creationTimestamp", "date")
ADDRESSABLE_COLUMNS: Final = (Column("URL", ".status.address.url"), AGE_COLUMN, *READY_COLUMNS)

CRD_INSTALL: Final = {"knative.dev/crd-install": "true"}
CHANNELABLE_LABELS: Final = {
    **CRD_INSTALL,
    "messaging.knative.dev/subscribable": "true",
    "duck.knative.dev/addressable": "true",
}
CHANNELABLE_CATEGORIES: Final = ("all", "knative", "messaging", "channel")


def channelable_kind(
    *,
    kind: str,
    plural: str,
    description: str = "",
    version: str = "v1",
    short_names: tuple[str, ...] = (),
    extra_spec_model: "type[Model] | Callable[[], type[Model]] | None" = None,
    columns: tuple[Column, ...] = ADDRESSABLE_COLUMNS,
    scoped: bool = False,
    default: Callable[[Object, Admission], None] | None = None,
    errors: Callable[[Object, Object | None, Admission], FieldErrors] | None = None,
) -> Kind:
    """The record of a backing channel kind of `messaging.knative.dev`.

    `extra_spec_model` adds fields to the spec; given as a function, it is asked for only with the schema. `scoped` kinds
    may have the annotation `eventing.knative.dev/scope` (cluster, the default, or namespace). `default` and `errors` are the
    kind's own rules and run after the shared ones; `errors` gives paths from the root of the object
    (`FieldErrors…via("spec")`).
    """

    def schema() -> dict[str, Any]:
        # Models and schemas are for the control plane; the data plane knows the kind and never asks for them.
        from eventing.resources.channelable_models import channelable_schema

        extra = extra_spec_model if extra_spec_model is None or isinstance(extra_spec_model, type) else extra_spec_model()
        return channelable_schema(kind, description or f"A {kind} keeps events and hands each to all its subscribers.", extra)

    def default_channel(obj: Object, admission: Admission) -> None:
        annotate(obj, SUBSCRIBABLE_ANNOTATION, "v1")
        default_delivery((obj.get("spec") or {}).get("delivery"), obj["metadata"].get("namespace", ""))
        if default is not None:
            default(obj, admission)

    def validate_channel(obj: Object, old: Object | None, admission: Admission) -> None:
        found = _channel_errors(obj, scoped=scoped)
        if old is not None:
            found += _subscriber_change_errors(obj, old, admission)
        if errors is not None:
            found += errors(obj, old, admission)
        found.raise_if_any()

    return Kind(
        group="messaging.knative.dev",
        version=version,
        kind=kind,
        plural=plural,
        schema=LazySchema(schema),
        short_names=short_names,
        categories=CHANNELABLE_CATEGORIES,
        columns=columns,
        labels=CHANNELABLE_LABELS,
        default=default_channel,
        validate=validate_channel,
    )


def annotate(obj: Object, name: str, value: str) -> None:
    """Give the object an annotation that it has not got yet."""
    metadata = obj.setdefault("metadata", {})
    if metadata.get("annotations") is None:
        metadata["annotations"] = {}
    metadata["annotations"].setdefault(name, value)


def _channel_errors(obj: Object, *, scoped: bool) -> FieldErrors:
    spec: dict[str, Any] = obj.get("spec") or {}
    errors = FieldErrors()
    for index, subscriber in enumerate(spec.get("subscribers") or ()):
        found = FieldErrors()
        if not subscriber.get("subscriberUri") and not subscriber.get("replyUri"):
            found += FieldErrors.missing("replyURI", "subscriberURI", details="expected at least one of, got none")
        if subscriber.get("delivery"):
            found += delivery_errors(subscriber["delivery"]).via("delivery")
        errors += found.via("spec", "subscribable", f"subscriber[{index}]")
    if spec.get("delivery"):
        errors += delivery_errors(spec["delivery"]).via("spec", "delivery")
    scope = (obj["metadata"].get("annotations") or {}).get(SCOPE_ANNOTATION, "cluster")
    if scoped and scope not in {"cluster", "namespace"}:
        errors += FieldErrors.invalid(
            scope,
            f"metadata.annotations.[{SCOPE_ANNOTATION}]",
            "expected either 'cluster' or 'namespace'",
        )
    return errors + journal_data_errors(obj)


def journal_data_errors(obj: Object) -> FieldErrors:
    """Whoever wants no data in the journal must not get it by a spelling mistake."""
    choice = (obj["metadata"].get("annotations") or {}).get(JOURNAL_DATA_ANNOTATION, "keep")
    if choice in {"keep", "omit"}:
        return FieldErrors()
    return FieldErrors.invalid(choice, f"metadata.annotations.[{JOURNAL_DATA_ANNOTATION}]", "expected either 'keep' or 'omit'")


def _subscriber_change_errors(obj: Object, old: Object, admission: Admission) -> FieldErrors:
    """`spec.subscribers` belongs to the controller: whoever else edits it would be overwritten."""
    now, before = ((o.get("spec") or {}).get("subscribers") or [] for o in (obj, old))
    if now == before or admission.user == CONTROLLER_USER:
        return FieldErrors()
    return FieldErrors.of(
        f"Channel.Spec.Subscribers changed by user {admission.user} which was not the {CONTROLLER_USER} service account",
        "spec.subscribers",
        # Knative says the differences only, and leaves people wondering what to do.
        details=f'{changes(SUBSCRIBERS, before, now)}"spec.subscribers" cannot be changed directly: create a Subscription',
    )
