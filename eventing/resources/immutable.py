"""What has changed and must not, told as Knative tells it: a line per leaf, named by its path in Knative's Go structs.

Users and test suites match on these texts. Knative compares structs with go-cmp; the shapes below are those structs: fields in
their order, embedded ones and pointers included.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from eventing.resources.fielderror import FieldErrors

__all__ = ["CHANNEL_SPEC", "SUBSCRIBERS", "SUBSCRIPTION_SPEC", "GoField", "changes", "immutable_errors"]


@dataclass(frozen=True, slots=True)
class GoField:
    """One field of a Go struct: its JSON name, its path there, and what it holds."""

    name: str
    path: str
    pointer: bool = False  # to a scalar: go-cmp writes a star before the whole path
    fields: tuple["GoField", ...] = ()
    url: bool = False  # apis.URL, compared part by part


def _pointer(name: str, path: str) -> GoField:
    return GoField(name, path, pointer=True)


_REFERENCE: Final = (
    GoField("kind", "Kind"),
    GoField("namespace", "Namespace"),
    GoField("name", "Name"),
    GoField("apiVersion", "APIVersion"),
    GoField("group", "Group"),
    _pointer("address", "Address"),
)
_URL: Final = tuple(GoField(name, name) for name in ("Scheme", "Host", "Path", "RawQuery", "Fragment"))
_DESTINATION: Final = (
    GoField("ref", "Ref", fields=_REFERENCE),
    GoField("uri", "URI", fields=_URL, url=True),
    _pointer("CACerts", "CACerts"),
    _pointer("audience", "Audience"),
)
_DELIVERY: Final = (
    GoField("deadLetterSink", "DeadLetterSink", fields=_DESTINATION),
    _pointer("retry", "Retry"),
    _pointer("timeout", "Timeout"),
    _pointer("backoffPolicy", "BackoffPolicy"),
    _pointer("backoffDelay", "BackoffDelay"),
    _pointer("retryAfterMax", "RetryAfterMax"),
    _pointer("format", "Format"),
)
_SUBSCRIBER: Final = (
    _pointer("name", "Name"),
    GoField("uid", "UID"),
    GoField("generation", "Generation"),
    GoField("subscriberUri", "SubscriberURI", fields=_URL, url=True),
    _pointer("subscriberCACerts", "SubscriberCACerts"),
    _pointer("subscriberAudience", "SubscriberAudience"),
    GoField("replyUri", "ReplyURI", fields=_URL, url=True),
    _pointer("replyCACerts", "ReplyCACerts"),
    _pointer("replyAudience", "ReplyAudience"),
    GoField("delivery", "Delivery", fields=_DELIVERY),
    GoField("auth", "Auth", fields=(_pointer("serviceAccountName", "ServiceAccountName"),)),
)
_TEMPLATE: Final = (
    GoField("kind", "TypeMeta.Kind"),
    GoField("apiVersion", "TypeMeta.APIVersion"),
    GoField("spec", "Spec.Raw"),
)
CHANNEL_SPEC: Final = GoField(
    "spec",
    "{v1.ChannelSpec}",
    fields=(
        GoField("channelTemplate", "ChannelTemplate", fields=_TEMPLATE),
        GoField("delivery", "ChannelableSpec.Delivery", fields=_DELIVERY),
    ),
)
SUBSCRIPTION_SPEC: Final = GoField("spec", "{v1.SubscriptionSpec}", fields=(GoField("channel", "Channel", fields=_REFERENCE),))
SUBSCRIBERS: Final = GoField("subscribers", "{[]v1.SubscriberSpec}", fields=_SUBSCRIBER)


def immutable_errors(shape: GoField, old: Mapping[str, Any], new: Mapping[str, Any]) -> FieldErrors:
    """The fault `Immutable fields changed (-old +new): spec` with the changed leaves of `shape`, or none."""
    changed = changes(shape, old, new)
    return FieldErrors.of("Immutable fields changed (-old +new)", "spec", details=changed) if changed else FieldErrors()


def changes(shape: GoField, old: Any, new: Any) -> str:
    """The leaves in which two values of one shape differ, "" where they do not. Lists of one length are compared by place."""
    lines: list[str] = []
    _compare(shape, shape.path, old, new, lines)
    return "".join(lines)


def _compare(field: GoField, path: str, old: Any, new: Any, lines: list[str]) -> None:
    if old == new:
        return
    if isinstance(old, list) or isinstance(new, list):
        old, new = old or [], new or []
        if len(old) == len(new):
            for index, (before, after) in enumerate(zip(old, new, strict=True)):
                _compare(field, f"{path}[{index}]", before, after, lines)
        else:
            lines.append(f'{path}:\n\t-: "{_text(old)}"\n\t+: "{_text(new)}"\n')
        return
    if field.url and old is not None and new is not None:
        old, new = _parts(old), _parts(new)
    if field.fields and isinstance(old or {}, Mapping) and isinstance(new or {}, Mapping):
        old, new = old or {}, new or {}
        for part in field.fields:
            star = "*" if part.pointer else ""
            _compare(part, f"{star}{path}.{part.path}", old.get(part.name), new.get(part.name), lines)
        return
    lines.append(f'{path}:\n\t-: "{_text(old)}"\n\t+: "{_text(new)}"\n')


def _parts(url: str) -> Any:
    """A URL as Go holds it; the text itself where it is none."""
    try:
        return dict(zip((field.name for field in _URL), urlsplit(url), strict=True))
    except ValueError:
        return url


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
