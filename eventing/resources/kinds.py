"""What the mesh knows of a kind, as data: the embedded API server serves any `Kind`, and CRDs are generated from it.

A kind is written once, here or in a back end's package, as a pydantic model (what users write, with its descriptions) and
this record. The API server, the CRD generator and the printer columns all read the same record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Admission", "Column", "Kind", "Object"]

Object = dict[str, Any]
"""An API object as it travels: plain JSON."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of kubectl's table (`additionalPrinterColumns` of a CRD)."""

    name: str
    json_path: str  # as in a CRD: .status.address.url
    type: str = "string"  # string | integer | number | boolean | date
    priority: int = 0  # 1: only with -o wide
    description: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """The request around an object, for rules that depend on who writes, or on what users configured.

    `user` is the authenticated name (`system:serviceaccount:NS:NAME` for the mesh's own controllers), `operation` is CREATE
    or UPDATE, `config_map` reads a ConfigMap's data by (namespace, name), {} where there is none.
    """

    user: str
    operation: str
    config_map: Callable[[str, str], Mapping[str, str]] = field(default=lambda _namespace, _name: {})


def _unchanged(obj: Object, _admission: Admission) -> None:
    """Leave `obj` as it is."""


def _valid(_obj: Object, _old: Object | None, _admission: Admission) -> None:
    """Find no fault."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of API object, in its one served version.

    `schema` is the structural OpenAPI v3 schema of the whole object without apiVersion, kind and metadata (so: spec, status,
    or data for core kinds). `default` fills in defaults in place. `validate` raises InvalidObjectError (old is None on
    create); both run after the schema check and pruning, on CREATE and UPDATE, as an admission webhook would.
    """

    group: str  # "" is the core group
    version: str
    kind: str
    plural: str
    schema: Mapping[str, Any]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    status: bool = True  # has a /status subresource
    columns: tuple[Column, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # of the CRD
    strategic_merge_keys: Mapping[str, str] = field(default_factory=dict)  # core kinds only: list path -> merge key
    default: Callable[[Object, Admission], None] = _unchanged
    validate: Callable[[Object, Object | None, Admission], None] = _valid

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """Where the API serves it: `/apis/GROUP/VERSION` or `/api/VERSION`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
