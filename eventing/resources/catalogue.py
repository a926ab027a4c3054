"""Every kind there is: those of the modules beside this one, and those of the installed back ends.

A kind is found where it is defined: a constant of type `Kind` in a module of `eventing.resources`. Nothing else lists it.
"""

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

import eventing.resources
from eventing.resources.kinds import Kind

__all__ = ["installed_kinds", "own_kinds"]


@cache
def own_kinds() -> tuple[Kind, ...]:
    """The kinds that the mesh itself defines, Kubernetes' core kinds first, else in the order of modules and lines.

    The data plane never asks: it would import all models. Raises TypeError where two modules define one kind.
    """
    found: dict[tuple[str, str], Kind] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(eventing.resources.__path__)):
        for value in vars(import_module(f"{eventing.resources.__name__}.{module}")).values():
            # A module that imports another's kind names it too.
            if isinstance(value, Kind) and found.setdefault((value.group, value.kind), value) is not value:
                raise TypeError(f"{value.kind} of group {value.group!r} is defined twice, once in eventing.resources.{module}")
    return tuple(sorted(found.values(), key=lambda kind: bool(kind.group)))


def installed_kinds() -> tuple[Kind, ...]:
    """The mesh's own kinds, and those of the back ends that are installed."""
    factories = sorted(entry_points(group="eventing.channels"), key=lambda point: point.name)
    return (*own_kinds(), *(point.load().kind for point in factories))
