"""An event broker and eventing mesh that speaks Knative's API.

`docs/architecture.md` has the picture: the way of an event, the layers, what each part must not know.
"""

from eventing.errors import EventingError, InvalidEventError
from eventing.event import Event

__all__ = ["Event", "EventingError", "InvalidEventError", "__version__"]

__version__ = "0.1.0"
