"""Objects as kubectl's tables: the server renders the columns (Kubernetes API, `meta.k8s.io/v1 Table`)."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from eventing.apiserver.registry import CompiledColumn, Resource
from eventing.apiserver.requests import View
from eventing.resources.kinds import Object

__all__ = ["human_duration", "partial", "row", "table"]

_NAME_COLUMN: Final = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": "Name must be unique within a namespace.",
    "priority": 0,
}


def table(resource: Resource, rows: list[Object], metadata: Object, view: View) -> Object:
    """A Table of rows made by `row`."""
    columns = [_NAME_COLUMN]
    for compiled in resource.columns:
        column = compiled.column
        columns.append(
            {
                "name": column.name,
                "type": column.type,
                "format": "",
                "description": column.description,
                "priority": column.priority,
            }
        )
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{view.version}",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


def row(resource: Resource, obj: Object, view: View, now: float) -> Object:
    """One row; its `object` is what `view.include` asks for."""
    cells = [obj["metadata"]["name"], *(_cell(compiled, obj, now) for compiled in resource.columns)]
    result: Object = {"cells": cells}
    if view.include == "Object":
        result["object"] = obj
    elif view.include == "Metadata":
        result["object"] = partial(obj, view.version)
    return result


def partial(obj: Object, version: str = "v1") -> Object:
    """The metadata of an object alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def _cell(compiled: CompiledColumn, obj: Object, now: float) -> Any:
    found = compiled.path.find(obj)
    if not found or found[0] is None:
        return None
    value = found[0]
    match compiled.column.type:
        case "date":
            return _age(value, now)
        case "integer":
            if isinstance(value, dict | list):
                return len(value)  # kubectl's own columns of the core kinds count: DATA of a ConfigMap
            return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return ",".join(map(_string, found)) if "[*]" in compiled.path.text else _string(value)


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _age(value: Any, now: float) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "<invalid>"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return human_duration(now - moment.timestamp())


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR: Final = 365 * _DAY


def human_duration(seconds: float) -> str:
    """As kubectl prints ages (apimachinery's HumanDuration): two units while the smaller one matters."""
    if seconds < -1:
        return "<invalid>"
    s = max(0, int(seconds))
    if s < 2 * _MINUTE:
        return f"{s}s"
    if s < 10 * _MINUTE:
        return _two(s // _MINUTE, "m", s % _MINUTE, "s")
    if s < 3 * _HOUR:
        return f"{s // _MINUTE}m"
    if s < 8 * _HOUR:
        return _two(s // _HOUR, "h", s // _MINUTE % 60, "m")
    if s < 2 * _DAY:
        return f"{s // _HOUR}h"
    if s < 8 * _DAY:
        return _two(s // _DAY, "d", s // _HOUR % 24, "h")
    if s < 2 * _YEAR:
        return f"{s // _DAY}d"
    if s < 8 * _YEAR:
        return _two(s // _YEAR, "y", s // _DAY % 365, "d")
    return f"{s // _YEAR}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"
