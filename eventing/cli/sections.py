"""What `eventing describe` shows of a kind beside its fields.

A kind gets a section by one entry in SECTIONS: a function from the client (to read what the object refers to) and the object
to tables. What is in the tables is worked out elsewhere, by pure functions; here they are only named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eventing.runtime.api_client import ApiClient, Object

__all__ = ["SECTIONS", "Section", "SectionTable"]


@dataclass(frozen=True, slots=True)
class SectionTable:
    """A table under a title of its own."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Section = Callable[[ApiClient, Object], Iterable[SectionTable]]

SECTIONS: Final[Mapping[str, tuple[Section, ...]]] = {}
"""By the qualified name of the resource, as in `subscriptions.messaging.knative.dev`."""
