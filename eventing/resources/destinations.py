"""Defaults and rules of references, destinations and delivery options, on objects as they travel (plain JSON).

No pydantic here: the data plane imports the kinds of channels, whose rules these are, and needs none of their models.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from eventing.resources.duration import parse_duration
from eventing.resources.fielderror import FieldErrors

__all__ = ["default_delivery", "default_destination", "delivery_errors", "destination_errors", "reference_errors"]


def default_destination(destination: dict[str, Any] | None, namespace: str) -> None:
    """A reference without a namespace means the namespace of the object that holds it."""
    reference = (destination or {}).get("ref")
    if reference is not None and not reference.get("namespace"):
        reference["namespace"] = namespace


def default_delivery(delivery: dict[str, Any] | None, namespace: str) -> None:
    default_destination((delivery or {}).get("deadLetterSink"), namespace)


def reference_errors(reference: Mapping[str, Any], only_namespace: str = "") -> FieldErrors:
    """KReference.Validate; with `only_namespace`, the object must be of that one."""
    errors = FieldErrors()
    for field in ("name", "apiVersion", "kind"):
        if not reference.get(field):
            errors += FieldErrors.missing(field)
    if reference.get("group"):
        errors += FieldErrors.disallowed("group")
    other = reference.get("namespace")
    if other and only_namespace and other != only_namespace:
        errors += FieldErrors.of(
            "mismatched namespaces",
            "namespace",
            details=f'parent namespace: "{only_namespace}" does not match ref: "{other}"',
        )
    return errors


def destination_errors(destination: Mapping[str, Any], only_namespace: str = "") -> FieldErrors:
    """Destination.Validate; with `only_namespace`, what it refers to must be in that one."""
    reference, uri = destination.get("ref"), destination.get("uri")
    if reference is None and uri is None:
        return FieldErrors.of("expected at least one, got none", "ref", "uri")
    errors = _ca_certs_errors(destination.get("CACerts"))
    if uri is not None:
        try:
            parts = urlsplit(uri)
            absolute, host = bool(parts.scheme), parts.hostname
        except ValueError:
            return errors + FieldErrors.invalid(uri, "uri", "it is not a URL")
        if reference is not None:
            if absolute:
                return errors + FieldErrors.of(
                    "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present",
                    "[apiVersion, kind, name]",
                    "ref",
                    "uri",
                )
        elif not absolute or not host:
            return errors + FieldErrors.invalid(
                "Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent", "uri"
            )
        elif parts.scheme not in {"http", "https"}:
            return errors + FieldErrors.invalid(uri, "uri", "events are delivered over http and https only")
    if reference is not None:
        errors += reference_errors(reference, only_namespace).via("ref")
    return errors


def delivery_errors(delivery: Mapping[str, Any], only_namespace: str = "") -> FieldErrors:
    """DeliverySpec.Validate, with `timeout` and `retryAfterMax` always allowed (no feature flags); see `destination_errors`."""
    errors = FieldErrors()
    if (sink := delivery.get("deadLetterSink")) is not None:
        errors += destination_errors(sink, only_namespace).via("deadLetterSink")
    if (retry := delivery.get("retry")) is not None and retry < 0:
        errors += FieldErrors.invalid(retry, "retry")
    for field, least, or_more in (
        ("timeout", 0.0, False),
        ("backoffDelay", 0.0, True),
        ("retryAfterMax", 0.0, True),
    ):
        if (text := delivery.get(field)) is None:
            continue
        try:
            seconds = parse_duration(text)
        except ValueError:
            errors += FieldErrors.invalid(text, field)
        else:
            if seconds < least or (seconds == least and not or_more):
                errors += FieldErrors.invalid(text, field)
    for field, values in (("backoffPolicy", ("linear", "exponential")), ("format", ("json", "binary"))):
        if (value := delivery.get(field)) is not None and value not in values:
            errors += FieldErrors.invalid(value, field)
    return errors


_PEM_BLOCK = re.compile(r"-----BEGIN ([^-]+)-----\s[A-Za-z0-9+/=\s]+-----END \1-----")


def _ca_certs_errors(certificates: str | None) -> FieldErrors:
    if not certificates:
        return FieldErrors()
    kinds = [match[1] for match in _PEM_BLOCK.finditer(certificates)]
    if any(kind != "CERTIFICATE" for kind in kinds):
        return FieldErrors.invalid("CA Cert provided is not a certificate", "caCert")
    try:
        # All of them are read, not the first only: the data plane would fail on any.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError):
        return FieldErrors.invalid("CA Cert provided is invalid", "caCert")
    return FieldErrors()
