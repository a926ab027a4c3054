"""Objects as kubectl's tables: the server renders the columns (Kubernetes API, `meta.k8s.io/v1 Table`)."""

from eventing.apiserver.registry import Resource
from eventing.apiserver.requests import View
from eventing.resources.kinds import Object

__all__ = ["partial", "row", "table"]


def table(resource: Resource, rows: list[Object], metadata: Object, view: View) -> Object:
    """A Table of rows made by `row`."""
    columns = [
        {
            "name": compiled.column.name,
            "type": compiled.column.type,
            "format": compiled.format,
            "description": compiled.column.description,
            "priority": compiled.column.priority,
        }
        for compiled in resource.columns
    ]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{view.version}",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


def row(resource: Resource, obj: Object, view: View, now: float) -> Object:
    """One row; its `object` is what `view.include` asks for."""
    result: Object = {"cells": [compiled.render(obj, now) for compiled in resource.columns]}
    if view.include == "Object":
        result["object"] = obj
    elif view.include == "Metadata":
        result["object"] = partial(obj, view.version)
    return result


def partial(obj: Object, version: str = "v1") -> Object:
    """The metadata of an object alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}
