"""Label selectors (`a=b,c!=d,e in (f,g),!h`) and field selectors (`metadata.name=x`), as the query parameters write them."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from eventing.apiserver.failures import bad_request

__all__ = ["FieldSelector", "LabelSelector", "Labels"]

Labels = Mapping[str, str]

_KEY: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_REQUIREMENT: Final = re.compile(
    rf"\s*(?:(?P<absent>!\s*{_KEY})|(?P<key>{_KEY})\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>[-A-Za-z0-9_.]*)"
    rf"|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)

_Test = Callable[[Labels], bool]


class LabelSelector:
    """A compiled label selector; the empty one matches everything."""

    __slots__ = ("_tests", "text")

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._tests: list[_Test] = []
        position = 0
        while position < len(text.rstrip()):
            match = _REQUIREMENT.match(text, position)
            if match is None or (match.end() == len(text) and text.rstrip().endswith(",")):
                raise bad_request(f"unable to parse requirement: found '{text[position:]}', expected a label requirement")
            self._tests.append(_test(match))
            position = match.end()

    def __bool__(self) -> bool:
        return bool(self._tests)

    def matches(self, labels: Labels) -> bool:
        return all(test(labels) for test in self._tests)


def _test(match: re.Match[str]) -> _Test:
    if match["absent"]:
        absent = match["absent"][1:].strip()
        return lambda labels: absent not in labels
    key, operator = match["key"], match["op"] or match["set"]
    if operator is None:
        return lambda labels: key in labels
    if operator in {"<", ">"}:
        return _numeric(key, operator, match["value"])
    given = match["values"].split(",") if match["set"] else [match["value"]]
    values = frozenset(value.strip() for value in given)
    if operator in {"=", "==", "in"}:
        return lambda labels: key in labels and labels[key] in values
    return lambda labels: labels.get(key) not in values


def _numeric(key: str, operator: str, text: str) -> _Test:
    try:
        bound = int(text)
    except ValueError:
        message = f"unable to parse requirement: for '<', '>' operators, the value must be an integer: {text!r}"
        raise bad_request(message) from None

    def test(labels: Labels) -> bool:
        try:
            value = int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > bound if operator == ">" else value < bound

    return test


class FieldSelector:
    """A compiled field selector over `supported` paths; one on anything else is refused as Kubernetes does."""

    __slots__ = ("name", "tests", "text")

    def __init__(self, text: str, supported: frozenset[str]) -> None:
        self.text = text
        self.tests: list[tuple[tuple[str, ...], str, bool]] = []
        self.name: str | None = None  # the one name that it asks for: a look-up in place of a search
        for term in _terms(text):
            path, equal, value = _parse_term(term)
            if path not in supported:
                raise bad_request(f"field label not supported: {path}")
            self.tests.append((tuple(path.split(".")), value, equal))
            if path == "metadata.name" and equal:
                self.name = value

    def __bool__(self) -> bool:
        return bool(self.tests)

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return all((_text(obj, path) == value) is equal for path, value, equal in self.tests)


def _terms(text: str) -> list[str]:
    return [term for term in re.split(r"(?<!\\),", text) if term.strip()]


def _parse_term(term: str) -> tuple[str, bool, str]:
    match = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)(.*)", term, re.DOTALL)
    if match is None:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    return match[1], match[2] != "!=", re.sub(r"\\([\\,=])", r"\1", match[3])


def _text(value: Any, path: tuple[str, ...]) -> str:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)
