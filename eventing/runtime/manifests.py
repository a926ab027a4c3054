"""Manifests given with `eventing up -f`: read and checked before anything starts, applied once the API serves."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from eventing.errors import StartError
from eventing.resources.kinds import Object
from eventing.resources.kubernetes_yaml import KubernetesLoader, check_yaml

__all__ = ["FIELD_MANAGER", "Manifest", "dump", "load", "parse", "read"]

FIELD_MANAGER: Final = "eventing-apply"
"""Owner of what `eventing up -f` and `eventing apply` set: what leaves the file leaves the object, whichever applies it."""

SIZE_MAX: Final = 16 * 1024 * 1024  # bytes of one file
_DEPTH_MAX: Final = 200
_VALUES_MAX: Final = 500_000  # of one document, aliases written out
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_FIRST: Final = ("Namespace", "CustomResourceDefinition")  # what others need is applied before them, wherever it stands


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object to apply. `origin` says for people where it stands: `orders.yaml, document 2`."""

    origin: str
    body: Object


def read(sources: Sequence[str], stdin: TextIO | None = None) -> list[Manifest]:
    """The objects of all `sources` (a file, a directory without its sub-directories, `-`), in the order to apply them.

    Raises StartError, which names the file, the document in it and the field.
    """
    found: list[Manifest] = []
    for source in sources:
        if source == "-":
            found += parse((stdin or sys.stdin).read(SIZE_MAX + 1), "standard input")
            continue
        path = Path(source)
        try:
            paths = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES) if path.is_dir() else [path]
            if not paths:
                raise StartError(f"{source}: the directory holds no .yaml, .yml or .json file")
            for each in paths:
                with each.open(encoding="utf-8") as file:
                    found += parse(file.read(SIZE_MAX + 1), str(each))
        except OSError as error:
            raise StartError(f"{error.filename or source}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StartError(f"{source}: is not UTF-8 text") from error
    return sorted(found, key=lambda manifest: manifest.body["kind"] not in _FIRST)


def parse(text: str, name: str) -> list[Manifest]:
    """The objects in one YAML or JSON text of any number of documents; those of a List one by one."""
    if len(text) > SIZE_MAX:
        raise StartError(f"{name}: is larger than {SIZE_MAX // 1024 // 1024} MiB")
    try:
        check_yaml(text, depth_max=_DEPTH_MAX, aliases=True)
        documents = list(yaml.load_all(text, Loader=KubernetesLoader))
    except yaml.YAMLError as error:
        raise StartError(f"{name}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise StartError(f"{name}: is nested too deeply") from error
    found: list[Manifest] = []
    several = sum(document is not None for document in documents) > 1
    for number, document in enumerate(documents, 1):
        if document is not None:
            found += _objects(document, f"{name}, document {number}" if several else name)
    return found


def _objects(document: Any, origin: str) -> Iterator[Manifest]:
    if not isinstance(document, dict):
        raise StartError(f"{origin}: is not an object with apiVersion and kind")
    body = _Plain(origin).of(document)
    for field in ("apiVersion", "kind"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise StartError(f"{origin}: {field}: required field is missing, or is no string")
    if body["kind"].endswith("List") and isinstance(body.get("items"), list):
        for number, item in enumerate(body["items"], 1):
            yield from _objects(item, f"{origin}, item {number}")
        return
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise StartError(f"{origin}: metadata.name: required field is missing, or is no string")
    yield Manifest(origin, body)


class _Plain:
    """Makes what YAML gave such as JSON can hold it: keys become strings, aliases copies, in bounds."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._left = _VALUES_MAX

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise StartError(f"{self._origin}: document contains excessive aliasing: more than {_VALUES_MAX} values")
        if depth > _DEPTH_MAX:
            raise StartError(f"{self._origin}: is nested too deeply")
        if isinstance(value, dict):
            return {_key(key, self._origin): self.of(member, depth + 1) for key, member in value.items()}
        if isinstance(value, list):
            return [self.of(member, depth + 1) for member in value]
        if value is None or isinstance(value, str | int | float | bool):
            return value
        raise StartError(f"{self._origin}: holds a value of a type that JSON does not have: {type(value).__name__}")


def _key(key: object, origin: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool | int | float):
        return json.dumps(key)
    raise StartError(f"{origin}: holds a key that is no string: {key!r}")


def dump(manifests: Iterable[Manifest]) -> str:
    return json.dumps([[manifest.origin, manifest.body] for manifest in manifests])


def load(text: str) -> list[Manifest]:
    """What `dump` wrote."""
    return [Manifest(origin, body) for origin, body in json.loads(text)]
