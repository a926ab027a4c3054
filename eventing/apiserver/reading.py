"""The verbs that read: get and list. Objects are kept encoded, so a list in JSON is a join of bytes."""

import base64
import binascii
import builtins
from collections.abc import Callable, Iterator, Sequence

import msgspec

from eventing.apiserver.failures import bad_request, invalid_options, not_found, too_new
from eventing.apiserver.registry import Resource
from eventing.apiserver.requests import Request, View
from eventing.apiserver.selectors import FieldSelector, LabelSelector
from eventing.apiserver.store import Key, Record, Store
from eventing.apiserver.tables import partial, row, table
from eventing.resources.kinds import Object

__all__ = ["Reader", "Selection", "check_version", "selection_of"]

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Selection:
    """Which objects of a resource a client wants: a namespace ("" for all), labels, fields."""

    __slots__ = ("_fields", "_labels", "_namespace", "trivial")

    def __init__(self, namespace: str, labels: LabelSelector, fields: FieldSelector) -> None:
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self.trivial = not labels and not fields

    def matches(self, record: Record) -> bool:
        if self._namespace and record.key[0] != self._namespace:
            return False
        if self.trivial:
            return True
        if self._fields.name is not None and record.key[1] != self._fields.name:
            return False
        if self._labels and not self._labels.matches(record.header.labels):
            return False
        return not self._fields or self._fields.matches(_decode(record.data))


def selection_of(resource: Resource, namespace: str, request: Request) -> Selection:
    """Raises 400 on a selector that cannot be read."""
    labels = LabelSelector(request.params.get("labelSelector", ""))
    fields = FieldSelector(request.params.get("fieldSelector", ""), resource.field_labels)
    return Selection(namespace, labels, fields)


class Reader:
    """Reads what is published."""

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def get(self, resource: Resource, key: Key, view: View, version: int = 0) -> bytes:
        """The object, no older than `version`."""
        check_version(version, self._store.version)
        record = self._store.collection(resource.key).records.get(key)
        if record is None:
            raise not_found(resource.kind, key[1])
        return self.show(resource, record.data, view)

    def show(self, resource: Resource, data: bytes, view: View) -> bytes:
        """One object, in the form that the client wants."""
        if not view.form:
            return data
        obj = _decode(data)
        if view.form == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return _encode(table(resource, [row(resource, obj, view, self._clock())], metadata, view))
        return _encode(partial(obj, view.version))

    def list(self, resource: Resource, namespace: str, request: Request, view: View) -> bytes:
        """A list, or a page of it; all pages show what was there when the first was asked for. Raises 400, 410, 422 and 504."""
        selection = selection_of(resource, namespace, request)
        limit = request.number("limit")
        version, after = self._start(request)
        chosen: builtins.list[Record] = []
        remaining = 0
        for record in self._candidates(self._store.collection(resource.key).at(version), after):
            if not selection.matches(record):
                continue
            if limit and len(chosen) == limit:
                remaining += 1
                if not selection.trivial:
                    break
            else:
                chosen.append(record)
        metadata: Object = {"resourceVersion": str(version)}
        if remaining:
            metadata["continue"] = _token(version, chosen[-1].key)
            if selection.trivial:
                metadata["remainingItemCount"] = remaining
        return self._show_list(resource, chosen, metadata, view)

    def _start(self, request: Request) -> tuple[int, Key | None]:
        """The version to list at, and the last object of the page before (apimachinery's ValidateListOptions)."""
        version, match = request.number("resourceVersion"), request.params.get("resourceVersionMatch", "")
        if request.params.get("sendInitialEvents"):
            raise invalid_options("ListOptions", "sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")
        token = request.params.get("continue", "")
        if match and not request.params.get("resourceVersion"):
            text = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise invalid_options("ListOptions", "resourceVersionMatch", text)
        if match and token:
            text = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
            raise invalid_options("ListOptions", "resourceVersionMatch", text)
        if match not in {"", "Exact", "NotOlderThan"}:
            text = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
            raise invalid_options("ListOptions", "resourceVersionMatch", text)
        if match == "Exact" and not version:
            text = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            raise invalid_options("ListOptions", "resourceVersionMatch", text)
        if token:
            if version:
                raise bad_request("specifying resource version is not allowed when using continue")
            return _parse_token(token)
        check_version(version, self._store.version)
        return (version if match == "Exact" else self._store.version), None

    @staticmethod
    def _candidates(records: Sequence[Record], after: Key | None) -> Iterator[Record]:
        return (record for record in records if after is None or record.key > after)

    def _show_list(self, resource: Resource, records: Sequence[Record], metadata: Object, view: View) -> bytes:
        if view.form == "Table":
            now = self._clock()
            rows = [row(resource, _decode(record.data), view, now) for record in records]
            return _encode(table(resource, rows, metadata, view))
        if view.form:
            kind, api_version = "PartialObjectMetadataList", f"meta.k8s.io/{view.version}"
            items = [_encode(partial(_decode(record.data), view.version)) for record in records]
        else:
            kind, api_version = resource.list_kind, resource.kind.api_version
            items = [record.data for record in records]
        head = _encode({"kind": kind, "apiVersion": api_version, "metadata": metadata})
        return b"".join((head[:-1], b',"items":[', b",".join(items), b"]}"))


def check_version(version: int, current: int) -> None:
    """Raises 504 on a version that the server has not reached, as after a database was put back."""
    if version > current:
        raise too_new(version, current)


def _token(version: int, key: Key) -> str:
    return base64.urlsafe_b64encode(_encode([version, *key])).decode()


def _parse_token(token: str) -> tuple[int, Key]:
    try:
        version, namespace, name = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[int, str, str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise bad_request("continue key is not valid: list again without it") from None
    return version, (namespace, name)
