"""The answers other than success, as Kubernetes words them: each is an ApiError whose `status` is the `Status` object to send.

Kubernetes API conventions, "Response Status Kind"; the texts are those of apimachinery's `api/errors`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventing.errors import (
    ApiError,
    ApiUnavailableError,
    ObjectConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    ResourceExpiredError,
)
from eventing.resources.kinds import Kind

__all__ = [
    "Cause",
    "bad_request",
    "conflict",
    "exists",
    "expired",
    "failure",
    "forbidden",
    "internal",
    "invalid",
    "invalid_options",
    "method_not_allowed",
    "modified",
    "not_acceptable",
    "not_found",
    "path_not_found",
    "qualified",
    "success",
    "too_large",
    "too_many",
    "too_new",
    "unauthorized",
    "unavailable",
    "unsupported_media_type",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong with an object: `reason` is for programs (FieldValueInvalid, …), `field` a path."""

    reason: str
    message: str
    field: str


_CLASSES: Final = {
    "NotFound": ObjectNotFoundError,
    "Conflict": ObjectConflictError,
    "AlreadyExists": ObjectExistsError,
    "Expired": ResourceExpiredError,
    "ServiceUnavailable": ApiUnavailableError,
    "TooManyRequests": ApiUnavailableError,
}


def failure(code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> ApiError:
    """The error of any kind; those below are its usual forms."""
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    if reason:
        status["reason"] = reason
    if details:
        status["details"] = dict(details)
    status["code"] = code
    return _CLASSES.get(reason, ApiError)(code, reason, message, status)


def success(kind: Kind, name: str, uid: str) -> dict[str, Any]:
    """The Status that answers a deletion which is complete."""
    details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def qualified(kind: Kind, *, plural: bool = True) -> str:
    """`channels.messaging.knative.dev`, or `configmaps` of the core group; with the kind's name in place of the plural."""
    name = kind.plural if plural else kind.kind
    return f"{name}.{kind.group}" if kind.group else name


def _named(kind: Kind, name: str) -> dict[str, Any]:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in details.items() if value}


def not_found(kind: Kind, name: str) -> ApiError:
    return failure(404, "NotFound", f'{qualified(kind)} "{name}" not found', _named(kind, name))


def path_not_found() -> ApiError:
    return failure(404, "NotFound", "the server could not find the requested resource")


def exists(kind: Kind, name: str, *, generated: bool = False) -> ApiError:
    text = f'{qualified(kind)} "{name}" already exists'
    if generated:
        text += ", the server was not able to generate a unique name for the object"
        return failure(409, "AlreadyExists", text, _named(kind, name) | {"retryAfterSeconds": 1})
    return failure(409, "AlreadyExists", text, _named(kind, name))


def conflict(kind: Kind, name: str, message: str) -> ApiError:
    text = f'Operation cannot be fulfilled on {qualified(kind)} "{name}": {message}'
    return failure(409, "Conflict", text, _named(kind, name))


def modified(kind: Kind, name: str) -> ApiError:
    return conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> ApiError:
    texts = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: dict[str, Any] = _named(kind, name) | {"kind": kind.kind}
    details["causes"] = [{"reason": cause.reason, "message": cause.message, "field": cause.field or "<nil>"} for cause in causes]
    return failure(422, "Invalid", f'{qualified(kind, plural=False)} "{name}" is invalid: {text}', details)


def invalid_options(kind: str, field: str, message: str) -> ApiError:
    """A query parameter that does not go with the others; `kind` is ListOptions, PatchOptions …"""
    reasons = {
        "Required value": "FieldValueRequired",
        "Unsupported value": "FieldValueNotSupported",
        "Invalid value": "FieldValueInvalid",
        "Too long": "FieldValueTooLong",
    }
    cause = {"reason": reasons.get(message.partition(":")[0], "FieldValueForbidden"), "message": message, "field": field}
    details = {"group": "meta.k8s.io", "kind": kind, "causes": [cause]}
    return failure(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {field}: {message}', details)


def bad_request(message: str, details: Mapping[str, Any] | None = None) -> ApiError:
    return failure(400, "BadRequest", message, details)


def unauthorized() -> ApiError:
    return failure(401, "Unauthorized", "Unauthorized")


def forbidden(message: str, details: Mapping[str, Any] | None = None) -> ApiError:
    return failure(403, "Forbidden", message, details)


def method_not_allowed() -> ApiError:
    return failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    return failure(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(accepted)}",
    )


def expired(message: str) -> ApiError:
    return failure(410, "Expired", message)


def too_large(limit: int) -> ApiError:
    return failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    return failure(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}",
    )


def too_many(message: str) -> ApiError:
    return failure(429, "TooManyRequests", message, {"retryAfterSeconds": 1})


def internal(message: str) -> ApiError:
    return failure(500, "InternalError", f"Internal error occurred: {message}")


def too_new(version: int, current: int) -> ApiError:
    """A version that the server has not reached: a client that remembers another server's begins anew on it."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    text = f"Timeout: Too large resource version: {version}, current: {current}"
    return failure(504, "Timeout", text, {"causes": [cause], "retryAfterSeconds": 1})


def unavailable(message: str) -> ApiError:
    return failure(503, "ServiceUnavailable", message)
