"""The cells of kubectl's tables: printer columns by JSON path, and those of core kinds that no JSON path can express."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from eventing.apiserver.jsonpath import JsonPath
from eventing.resources.kinds import Column, Kind, Object

__all__ = ["CompiledColumn", "columns_of", "human_duration"]

Render = Callable[[Object, float], Any]


@dataclass(frozen=True, slots=True)
class CompiledColumn:
    """A printer column, ready for use: `render` makes the cell of an object at a time (seconds since the epoch)."""

    column: Column
    render: Render
    format: str = ""


_NAME: Final = Column("Name", ".metadata.name", description="Name must be unique within a namespace.")
_CREATED: Final = Column("Age", ".metadata.creationTimestamp", "date")


def columns_of(kind: Kind) -> tuple[CompiledColumn, ...]:
    """All columns of a kind; as Kubernetes prints it, where that is not a matter of paths."""
    if not kind.group and kind.plural in _CORE:
        return _CORE[kind.plural]
    own = (CompiledColumn(column, _by_path(column)) for column in kind.columns or (_CREATED,))
    return (CompiledColumn(_NAME, lambda obj, _now: obj["metadata"]["name"], "name"), *own)


def _by_path(column: Column) -> Render:
    path = JsonPath(column.json_path)

    def render(obj: Object, now: float) -> Any:
        found = path.find(obj)
        if not found or found[0] is None:
            return None
        value = found[0]
        match column.type:
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
                return ",".join(map(_string, found)) if "[*]" in path.text else _string(value)

    return render


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


def _since(now: float, *moments: Any) -> str:
    """The age of the first moment that is given."""
    return next((_age(moment, now) for moment in moments if moment), "<unknown>")


def _last_seen(event: Object, now: float) -> str:
    series = event.get("series") or {}
    return _since(now, series.get("lastObservedTime"), event.get("lastTimestamp"), *_first_times(event))


def _first_times(event: Object) -> tuple[Any, Any]:
    return event.get("firstTimestamp"), event.get("eventTime")


def _involved(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    name, kind = str(involved.get("name") or ""), str(involved.get("kind") or "").lower()
    return f"{kind}/{name}" if kind else name


def _source(event: Object) -> str:
    source = event.get("source") or {}
    parts = (source.get("component") or event.get("reportingComponent"), source.get("host") or event.get("reportingInstance"))
    return ", ".join(str(part) for part in parts if part)


def _count(event: Object) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _external(service: Object) -> str:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or "<none>")
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [str(each.get("ip") or each.get("hostname")) for each in ingress] + list(spec.get("externalIPs") or ())
    return ",".join(addresses) or ("<pending>" if spec.get("type") == "LoadBalancer" else "<none>")


def _ports(service: Object) -> str:
    ports = (service.get("spec") or {}).get("ports") or ()
    texts = [f"{port.get('port')}{f':{node}' if (node := port.get('nodePort')) else ''}/{port.get('protocol')}" for port in ports]
    return ",".join(texts) or "<none>"


def _selector(service: Object) -> str:
    selector = (service.get("spec") or {}).get("selector") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(selector.items())) or "<none>"


def _made(name: str, render: Render, *, kind: str = "string", wide: bool = False, form: str = "") -> CompiledColumn:
    return CompiledColumn(Column(name, "", kind, priority=int(wide)), render, form)


def _counting(name: str, *fields: str, before: tuple[CompiledColumn, ...] = ()) -> tuple[CompiledColumn, ...]:
    """Name, what comes before, how many entries the fields have together, age."""
    return (
        _made("Name", lambda obj, _now: obj["metadata"]["name"], form="name"),
        *before,
        _made(name, lambda obj, _now: sum(len(obj.get(field) or ()) for field in fields), kind="integer"),
        _made("Age", lambda obj, now: _since(now, obj["metadata"].get("creationTimestamp"))),
    )


# As kubernetes/pkg/printers prints them.
_CORE: Final = {
    "configmaps": _counting("Data", "data", "binaryData"),
    "secrets": _counting("Data", "data", before=(_made("Type", lambda secret, _now: secret.get("type")),)),
    "serviceaccounts": _counting("Secrets", "secrets"),
    "events": (
        _made("Last Seen", _last_seen),
        _made("Type", lambda event, _now: event.get("type")),
        _made("Reason", lambda event, _now: event.get("reason")),
        _made("Object", lambda event, _now: _involved(event)),
        _made("Subobject", lambda event, _now: (event.get("involvedObject") or {}).get("fieldPath"), wide=True),
        _made("Source", lambda event, _now: _source(event), wide=True),
        _made("Message", lambda event, _now: str(event.get("message") or "").strip()),
        _made("First Seen", lambda event, now: _since(now, *_first_times(event)), wide=True),
        _made("Count", lambda event, _now: _count(event), kind="integer", wide=True),
        _made("Name", lambda event, _now: event["metadata"]["name"], wide=True, form="name"),
    ),
    "services": (
        _made("Name", lambda service, _now: service["metadata"]["name"], form="name"),
        _made("Type", lambda service, _now: (service.get("spec") or {}).get("type")),
        _made("Cluster-IP", lambda service, _now: (service.get("spec") or {}).get("clusterIP") or "<none>"),
        _made("External-IP", lambda service, _now: _external(service)),
        _made("Port(s)", lambda service, _now: _ports(service)),
        _made("Age", lambda service, now: _since(now, service["metadata"].get("creationTimestamp"))),
        _made("Selector", lambda service, _now: _selector(service), wide=True),
    ),
}
