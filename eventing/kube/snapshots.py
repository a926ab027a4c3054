"""Objects kept small: encoded, and taken apart when somebody looks.

Decoded, an object of a kilobyte takes four to eight; ten thousand of them would be most of a process. Taking one apart takes
microseconds.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from eventing.resources.kinds import Object

__all__ = ["Key", "Snapshots"]

Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-wide objects is empty."""

_AT_HAND: Final = 16
_encode = msgspec.json.encode
_decode = msgspec.json.decode


class _Snapshot(dict[str, Any]):
    """An object that may be forgotten when nobody holds it."""

    __slots__ = ("__weakref__",)


class Snapshots(MutableMapping[Key, Object]):
    """Objects by key. Who gets one holds a snapshot and must not change it; as long as anybody holds it, all get the same.

    `metadata.managedFields` is left out: no reader asks who set which field, and it is as large as the rest.
    """

    def __init__(self) -> None:
        self._data: dict[Key, bytes] = {}
        self._held: WeakValueDictionary[Key, _Snapshot] = WeakValueDictionary()
        self._at_hand: OrderedDict[Key, _Snapshot] = OrderedDict()

    def __getitem__(self, key: Key) -> Object:
        held = self._held.get(key)
        return held if held is not None else self._hold(key, _Snapshot(_decode(self._data[key])))

    def __setitem__(self, key: Key, obj: Object) -> None:
        metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
        snapshot = _Snapshot({**obj, "metadata": metadata})
        # A copy of exactly its size: the encoder's own has room to grow, which nothing else would fit into.
        self._data[sys.intern(key[0]), key[1]] = bytes(memoryview(_encode(snapshot)))
        self._hold(key, snapshot)

    def __delitem__(self, key: Key) -> None:
        del self._data[key]
        self._held.pop(key, None)
        self._at_hand.pop(key, None)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def _hold(self, key: Key, snapshot: _Snapshot) -> Object:
        self._held[key] = snapshot
        self._at_hand.pop(key, None)
        self._at_hand[key] = snapshot
        if len(self._at_hand) > _AT_HAND:
            self._at_hand.popitem(last=False)
        return snapshot
