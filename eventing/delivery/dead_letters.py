"""What a dead letter says about itself: the error attributes that Knative adds (docs/delivery.md, "Dead letters")."""

import base64
from typing import Final

from eventing.bindings.http import with_attributes
from eventing.event import Event

__all__ = ["dead_letter"]

# Knative's dispatcher cuts the encoded text at 1,024 characters, which may break its tail. Cutting the bytes at 768 gives at
# most 1,024 characters that always decode.
DATA_BYTES_MAX: Final = 768


def dead_letter(event: Event, *, destination: str, code: int, data: bytes) -> Event:
    """The event as the dead-letter sink gets it: `knativeerrordest` always; `knativeerrorcode` the last status, 500 where no
    answer came; `knativeerrordata` base64 of the last answer's body or of the error's text, absent where there is none: nothing
    stays of what an earlier death has left in the event."""
    return with_attributes(
        event,
        {
            "knativeerrordest": destination,
            "knativeerrorcode": code if 100 <= code <= 599 else 500,
            "knativeerrordata": base64.b64encode(data[:DATA_BYTES_MAX]).decode() if data else None,
        },
    )
