"""What the reconcilers share: the client, the caches, and who is called in by whom."""

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from eventing.channels import ChannelFactory
from eventing.control.planes import DataPlanes
from eventing.control.recorder import EventRecorder
from eventing.control.references import References, Watcher
from eventing.control.status import key_of
from eventing.control.subscriber_table import ChannelName, SubscriberTable
from eventing.kube import Cache, KubeClient, controller_of
from eventing.reconcile import Key
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL

__all__ = ["Backing", "World", "owner_channel"]

_INDEXES: Final = 64  # channels whose subscribers are looked up at a time; each index holds its channel decoded


class Backing:
    """One kind of backing channel: its back end, its objects, and each object's subscribers by uid."""

    def __init__(self, factory: ChannelFactory, cache: Cache) -> None:
        self.factory = factory
        self.cache = cache
        self._indexes: OrderedDict[Key, tuple[Object, dict[str, Object], dict[str, Object]]] = OrderedDict()

    @property
    def kind(self) -> Kind:
        return self.cache.kind

    def subscriber(self, channel: Object, uid: str) -> tuple[Object | None, Object | None]:
        """A subscriber's entry in the channel's spec and in its status."""
        key = key_of(channel)
        index = self._indexes.get(key)
        if index is None or index[0] is not channel:
            # Thousands of Subscriptions look into one channel between two changes of it: one index serves them all.
            entries, states = (
                {entry["uid"]: entry for entry in (channel.get(part) or {}).get("subscribers") or () if "uid" in entry}
                for part in ("spec", "status")
            )
            index = self._indexes[key] = (channel, entries, states)
            if len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)
        return index[1].get(uid), index[2].get(uid)

    def forget(self, key: Key) -> None:
        self._indexes.pop(key, None)


@dataclass
class World:
    """Put together by Controllers; read by everyone."""

    client: KubeClient
    now: Callable[[], datetime]
    rand: random.Random
    channels: Cache
    subscriptions: Cache
    backings: Mapping[tuple[str, str], Backing]
    table: SubscriberTable
    planes: DataPlanes
    references: References
    recorder: EventRecorder
    call_in: Callable[[Watcher], None] = field(repr=False)
    caches: dict[tuple[str, str], Cache] = field(default_factory=dict)  # by group and kind

    def cache(self, kind: Kind) -> Cache:
        """The objects of a kind that is reconciled or owned here."""
        return self.caches[kind.group, kind.kind]

    def backing_of(self, channel: Object) -> Backing | None:
        """The back end that a Channel's template names, None where it is not installed."""
        template = (channel.get("spec") or {}).get("channelTemplate") or {}
        return self.backings.get((template.get("apiVersion", "").rpartition("/")[0], template.get("kind", "")))

    def behind(self, channel: Object) -> Object | None:
        """The backing channel that a Channel has made, None where there is none (or one that is somebody else's)."""
        backing = self.backing_of(channel)
        found = backing.cache.get(*key_of(channel)) if backing is not None else None
        owner = owner_channel(found) if found is not None else None
        return found if owner is not None and owner.get("uid") == channel["metadata"]["uid"] else None

    def names_of(self, backing: Backing, channel: Object) -> list[ChannelName]:
        """By which names Subscriptions refer to a backing channel: its own, and that of the Channel it stands behind."""
        key = key_of(channel)
        names: list[ChannelName] = [(backing.kind.group, backing.kind.kind, *key)]
        owner = owner_channel(channel)
        if owner is not None and owner.get("name") == key[1]:
            front = self.channels.get(*key)
            if front is None or front["metadata"]["uid"] == owner.get("uid"):
                names.append((CHANNEL.group, CHANNEL.kind, *key))
        return names


def owner_channel(backing_channel: Object) -> Object | None:
    """The ownerReference to the Channel that made a backing channel, None where a user made it."""
    owner = controller_of(backing_channel)
    if owner is None or (owner.get("apiVersion", "").rpartition("/")[0], owner.get("kind")) != (CHANNEL.group, CHANNEL.kind):
        return None
    return owner
