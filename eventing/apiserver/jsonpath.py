r"""The part of Kubernetes' JSONPath that printer columns use: `.a.b`, `['a.b']`, `\.` in names, `[0]`, `[*]`, `[?(@.a=="b")]`."""

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["JsonPath", "JsonPathError"]

_STEP: Final = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\]|\\.)+)"""
    r"""|\[\s*(?P<quote>['"])(?P<key>.*?)(?P=quote)\s*\]"""
    r"""|\[\s*(?P<index>-?\d+)\s*\]"""
    r"""|(?P<all>\[\s*\*\s*\]|\.\*)"""
    r"""|\[\?\(\s*@(?P<path>[^=!<>]*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>.+?))?\s*\)\]""",
)
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LITERALS: Final = {"true": True, "false": False, "null": None, "nil": None}

_Step = Callable[[Any], Iterator[Any]]


class JsonPathError(ValueError):
    """The text is no path that columns may have."""


class JsonPath:
    """A compiled path. `find` gives what it leads to, nothing where it leads nowhere."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps: list[_Step] = []
        rest = text.strip()
        if rest.startswith("{") and rest.endswith("}"):
            rest = rest[1:-1].strip()
        rest = rest.removeprefix("$").removeprefix("@")
        if rest and rest[0] not in ".[":
            rest = f".{rest}"
        position = 0
        while position < len(rest):
            match = _STEP.match(rest, position)
            if match is None:
                raise JsonPathError(f"{text!r} is not a simple JSON path (at {rest[position:]!r})")
            self._steps.append(_step(match))
            position = match.end()

    def find(self, value: Any) -> list[Any]:
        found = [value]
        for step in self._steps:
            found = [result for item in found for result in step(item)]
            if not found:
                break
        return found


def _step(match: re.Match[str]) -> _Step:
    if match["all"]:
        return _each
    if match["index"] is not None:
        return _item(int(match["index"]))
    if match["path"] is not None:
        return _filter(match)
    name = match["key"] if match["quote"] else re.sub(r"\\(.)", r"\1", match["name"])
    if name == "*":
        return _each
    return _field(name)


def _field(name: str) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _item(index: int) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _filter(match: re.Match[str]) -> _Step:
    path = JsonPath(match["path"])
    if match["op"] is None:
        return lambda value: (item for item in _each(value) if path.find(item))
    compare, expected = _OPERATORS[match["op"]], _literal(match["value"])

    def holds(item: Any) -> bool:
        found = path.find(item)
        if not found or (isinstance(found[0], str) != isinstance(expected, str)):
            return False
        return compare(found[0], expected)

    return lambda value: (item for item in _each(value) if holds(item))


def _literal(text: str) -> Any:
    if text[:1] in "'\"" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    if text in _LITERALS:
        return _LITERALS[text]
    try:
        return float(text)
    except ValueError:
        raise JsonPathError(f"{text!r} is neither a number nor quoted") from None
