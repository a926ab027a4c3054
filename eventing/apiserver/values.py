"""The value rules of a schema: bounds, patterns, formats, enumerations and their combinations."""

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from eventing.apiserver.failures import Cause

__all__ = ["Check", "value_checks"]

Check = Callable[[Any, str], Cause | None]
"""(value, path) → what is wrong with it."""


def value_checks(schema: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks that a schema asks for; those that do not concern the value's type pass."""
    return tuple(_checks(schema))


def _checks(schema: Mapping[str, Any]) -> Iterator[Check]:
    if "enum" in schema:
        yield _enum(list(schema["enum"]))
    if "pattern" in schema:
        yield _pattern(str(schema["pattern"]))
    if (known := _FORMATS.get(schema.get("format", ""))) is not None and schema.get("type") == "string":
        yield _format(schema["format"], known)
    for name, make in _BOUNDS.items():
        if name in schema:
            yield make(schema[name], bool(schema.get(f"exclusive{name[:1].upper()}{name[1:]}")))
    if schema.get("uniqueItems"):
        yield _unique
    for name, combine in _COMBINATIONS.items():
        if name in schema:
            yield combine([_matcher(part) for part in schema[name]])
    if "not" in schema:
        yield _not(_matcher(schema["not"]))


def _invalid(value: Any, path: str, text: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else msgspec.json.encode(value).decode()
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {path} in body {text}", path)


def _enum(allowed: list[Any]) -> Check:
    def check(value: Any, path: str) -> Cause | None:
        if any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in allowed):
            return None
        shown = f'"{value}"' if isinstance(value, str) else msgspec.json.encode(value).decode()
        options = ", ".join(f'"{option}"' for option in allowed)
        return Cause("FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {options}", path)

    return check


def _pattern(text: str) -> Check:
    try:
        compiled = re.compile(text)
    except re.error:
        return lambda _value, _path: None  # a pattern of Go's dialect only: it was admitted with a warning

    def check(value: Any, path: str) -> Cause | None:
        if not isinstance(value, str) or compiled.search(value):
            return None
        return _invalid(value, path, f"should match '{text}'")

    return check


def _format(name: str, holds: Callable[[str], object]) -> Check:
    def check(value: Any, path: str) -> Cause | None:
        if not isinstance(value, str):
            return None
        try:
            holds(value)
        except binascii.Error as error:  # what is in base64 may be a secret: it is not shown
            return Cause("FieldValueInvalid", f"Invalid value: illegal base64 data: {error}", path)
        except ValueError:
            return _invalid(value, path, f'must be of type {name}: "{value}"')
        return None

    return check


def _uri(text: str) -> None:
    if not urlsplit(text).scheme:
        raise ValueError(text)


def _email(text: str) -> None:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError(text)


def _base64(text: str) -> None:
    base64.b64decode(text, validate=True)


_FORMATS: Final[dict[str, Callable[[str], object]]] = {
    "byte": _base64,
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "email": _email,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": ipaddress.ip_network,
    "uri": _uri,
    "uuid": uuid.UUID,
}


def _bound(
    kind: type | tuple[type, ...], measure: Callable[[Any], Any], *, upper: bool, text: str
) -> Callable[[Any, bool], Check]:
    def make(bound: Any, exclusive: bool) -> Check:
        def check(value: Any, path: str) -> Cause | None:
            if not isinstance(value, kind) or isinstance(value, bool):
                return None
            size = measure(value)
            if (size == bound and not exclusive) or (size < bound if upper else size > bound):
                return None
            return _invalid(value, path, text.format(bound=bound, orequal="" if exclusive else " or equal to"))

        return check

    return make


def _itself(value: Any) -> Any:
    return value


_NUMBER: Final = (int, float)
_BOUNDS: Final[dict[str, Callable[[Any, bool], Check]]] = {
    "maximum": _bound(_NUMBER, _itself, upper=True, text="should be less than{orequal} {bound}"),
    "minimum": _bound(_NUMBER, _itself, upper=False, text="should be greater than{orequal} {bound}"),
    "maxLength": _bound(str, len, upper=True, text="should be at most {bound} chars long"),
    "minLength": _bound(str, len, upper=False, text="should be at least {bound} chars long"),
    "maxItems": _bound(list, len, upper=True, text="should have at most {bound} items"),
    "minItems": _bound(list, len, upper=False, text="should have at least {bound} items"),
    "maxProperties": _bound(dict, len, upper=True, text="should have at most {bound} properties"),
    "minProperties": _bound(dict, len, upper=False, text="should have at least {bound} properties"),
    "multipleOf": lambda unit, _exclusive: (
        lambda value, path: (
            _invalid(value, path, f"should be a multiple of {unit}")
            if isinstance(value, _NUMBER) and not isinstance(value, bool) and value % unit
            else None
        )
    ),
}


def _unique(value: Any, path: str) -> Cause | None:
    if isinstance(value, list) and len({msgspec.json.encode(item, order="sorted") for item in value}) != len(value):
        return _invalid(value, path, "shouldn't contain duplicates")
    return None


_Matcher = Callable[[Any, str], bool]


def _matcher(schema: Mapping[str, Any]) -> _Matcher:
    """Whether a value satisfies a part of anyOf, oneOf, allOf or not (no pruning, no defaults there)."""
    checks = value_checks(schema)
    required = list(schema.get("required") or ())
    properties = {name: _matcher(part) for name, part in (schema.get("properties") or {}).items()}
    items = _matcher(schema["items"]) if isinstance(schema.get("items"), Mapping) else None
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    wanted: Any = types.get(schema.get("type", ""), object)

    def matches(value: Any, path: str) -> bool:
        if not isinstance(value, wanted) or any(check(value, path) is not None for check in checks):
            return False
        if isinstance(value, dict):
            if any(name not in value for name in required):
                return False
            return all(part(value[name], f"{path}.{name}") for name, part in properties.items() if name in value)
        if isinstance(value, list) and items is not None:
            return all(items(item, path) for item in value)
        return True

    return matches


def _any_of(parts: list[_Matcher]) -> Check:
    return lambda value, path: (
        None if any(part(value, path) for part in parts) else _combined(path, "must validate at least one schema (anyOf)")
    )


def _one_of(parts: list[_Matcher]) -> Check:
    return lambda value, path: (
        None
        if sum(part(value, path) for part in parts) == 1
        else _combined(path, "must validate one and only one schema (oneOf)")
    )


def _all_of(parts: list[_Matcher]) -> Check:
    return lambda value, path: (
        None if all(part(value, path) for part in parts) else _combined(path, "must validate all the schemas (allOf)")
    )


def _not(part: _Matcher) -> Check:
    return lambda value, path: _combined(path, "must not validate the schema (not)") if part(value, path) else None


def _combined(path: str, text: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "": "{path}" {text}', path)


_COMBINATIONS: Final[dict[str, Callable[[list[_Matcher]], Check]]] = {
    "anyOf": _any_of,
    "oneOf": _one_of,
    "allOf": _all_of,
}
