"""Every error that leaves a module of the mesh.

    EventingError
     ├── InvalidEventError          the event breaks the CloudEvents specification; names every fault
     ├── ChannelError
     │    ├── ChannelFullError        no room now; retriable after `retry_after` seconds
     │    ├── ChannelUnavailableError the back end is away; retriable after `retry_after` seconds
     │    └── EventTooLargeError      the back end can never store it; not retriable
     ├── InvalidObjectError         an API object breaks its schema or its kind's rules; carries `causes`
     ├── ApiError                   an answer of a Kubernetes API other than success
     │    ├── ObjectNotFoundError     404
     │    ├── ObjectConflictError     409 Conflict: somebody else wrote first, read again
     │    ├── ObjectExistsError       409 AlreadyExists
     │    ├── ResourceExpiredError    410: the resource version is too old, list again
     │    └── ApiUnavailableError     no answer at all, 429 or 5xx; retriable
     └── StartError                 the mesh cannot start; says what to do

Policy is in attributes, so that callers branch without reading text: `retriable` says whether the same call may succeed
later, `retry_after` when to try (seconds; None: the caller's own back-off).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ApiError",
    "ApiUnavailableError",
    "ChannelError",
    "ChannelFullError",
    "ChannelUnavailableError",
    "EventTooLargeError",
    "EventingError",
    "Fault",
    "InvalidEventError",
    "InvalidObjectError",
    "ObjectConflictError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "ResourceExpiredError",
    "StartError",
    "api_error",
]


class EventingError(Exception):
    """Root of the tree."""

    retriable: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong, and where: `field` is an attribute name or a field path, `message` is for people."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidEventError(EventingError):
    """An event breaks the CloudEvents specification. `faults` names all of them, not just the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class ChannelError(EventingError):
    """A channel could not take an event."""


class ChannelFullError(ChannelError):
    """There is no room for the batch; none of it was stored."""

    retriable = True

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ChannelUnavailableError(ChannelError):
    """The back end did not acknowledge. With `maybe_stored` the batch, or some of it, may have been stored all the same."""

    retriable = True

    def __init__(self, message: str, retry_after: float = 1.0, *, maybe_stored: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.maybe_stored = maybe_stored


class EventTooLargeError(ChannelError):
    """The back end refuses an event of this size for good."""


class InvalidObjectError(EventingError):
    """An API object is invalid. `causes` are (field path, message) pairs; the text is the one that Knative prints."""

    def __init__(self, message: str, causes: Sequence[Fault] = ()) -> None:
        self.causes = tuple(causes)
        super().__init__(message)


class ApiError(EventingError):
    """A Kubernetes API answered with a failure. `status` is its `Status` object, as far as there was one."""

    def __init__(self, code: int, reason: str, message: str, status: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.status = dict(status or {})
        super().__init__(message)


class ObjectNotFoundError(ApiError):
    """404 NotFound."""


class ObjectConflictError(ApiError):
    """409 Conflict: the object changed since it was read."""

    retriable = True


class ObjectExistsError(ApiError):
    """409 AlreadyExists."""


class ResourceExpiredError(ApiError):
    """410 Gone or Expired: list again."""

    retriable = True


class ApiUnavailableError(ApiError):
    """No answer, 429 or 5xx."""

    retriable = True


def api_error(code: int, status: object, text: str = "") -> ApiError:
    """The error of an answer other than success: by its `Status` object where it has one, else with `text`."""
    members = status if isinstance(status, dict) else {}
    reason = str(members.get("reason") or "")
    cls: type[ApiError] = ApiError
    if code == 404:
        cls = ObjectNotFoundError
    elif code == 409:
        cls = ObjectExistsError if reason == "AlreadyExists" else ObjectConflictError
    elif code == 410:
        cls = ResourceExpiredError
    elif code == 429 or code >= 500:
        cls = ApiUnavailableError
    return cls(code, reason, str(members.get("message") or text.strip() or f"HTTP {code}"), members)


class StartError(EventingError):
    """The mesh cannot start; the message says why and what to do."""
