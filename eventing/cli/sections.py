"""What `eventing describe` shows of a kind beside its fields.

A kind gets a section by one entry in SECTIONS: a function from the client (to read what the object refers to) and the object
to tables. What is in the tables is worked out elsewhere, by pure functions; here they are only named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eventing.errors import ObjectNotFoundError
from eventing.runtime.api_client import ApiClient, Object

__all__ = ["SECTIONS", "Section", "SectionTable"]


@dataclass(frozen=True, slots=True)
class SectionTable:
    """A table under a title of its own."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Section = Callable[[ApiClient, Object], Iterable[SectionTable]]


def _delivery(client: ApiClient, subscription: Object) -> Iterable[SectionTable]:
    from eventing.delivery.effective import effective_delivery  # only here

    reference = subscription["spec"].get("channel") or {}
    channel = None
    with suppress(ObjectNotFoundError):  # then the Subscription is described without it; its conditions say that it is missing
        resource = client.kind(reference.get("apiVersion", ""), reference.get("kind", ""))
        channel = client.get(resource, subscription["metadata"]["namespace"], reference.get("name", ""))
    rows = [(row.what, row.value, row.source, row.field) for row in effective_delivery(subscription, channel)]
    yield SectionTable("Delivery in force", ("WHAT", "VALUE", "FROM", "FIELD"), rows)


SECTIONS: Final[Mapping[str, tuple[Section, ...]]] = {"subscriptions.messaging.knative.dev": (_delivery,)}
"""By the qualified name of the resource, as in `subscriptions.messaging.knative.dev`."""
