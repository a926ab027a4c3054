"""`python -m eventing.resources.crds DIRECTORY` writes the CustomResourceDefinition of each kind of the mesh.

The schemas are those that the embedded API server enforces. Kubernetes' core kinds need no definition.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from eventing.resources.catalogue import installed_kinds
from eventing.resources.kinds import Column, Kind

__all__ = ["crd", "crd_files", "write_crds"]

_HEADER = "# Generated from the models by `python -m eventing.resources.crds`: edit those.\n"


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind."""
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    version: dict[str, Any] = {"name": kind.version, "served": True, "storage": True}
    if kind.status:
        version["subresources"] = {"status": {}}
    if kind.columns:
        version["additionalPrinterColumns"] = [_column(column) for column in kind.columns]
    version["schema"] = {"openAPIV3Schema": _plain(dict(kind.schema))}
    metadata: dict[str, Any] = {"name": f"{kind.plural}.{kind.group}"}
    if kind.labels:
        metadata["labels"] = dict(kind.labels)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def crd_files(kinds: Iterable[Kind]) -> dict[str, str]:
    """File name to contents, one file per kind that is not Kubernetes' own."""
    return {
        f"{kind.plural}.{kind.group}.yaml": _HEADER + yaml.safe_dump(crd(kind), sort_keys=False, width=120, allow_unicode=True)
        for kind in kinds
        if kind.group
    }


def write_crds(directory: Path, kinds: Iterable[Kind]) -> None:
    """Write the files and remove those of kinds that are no more."""
    files = crd_files(kinds)
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.yaml"):
        if stale.name not in files and stale.read_text(encoding="utf-8").startswith(_HEADER):
            stale.unlink()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")


def _column(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry


def _plain(node: Any) -> Any:
    """A copy without shared parts, so that the YAML has no anchors."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


if __name__ == "__main__":
    write_crds(Path(sys.argv[1] if len(sys.argv) > 1 else "deploy/crds"), installed_kinds())
