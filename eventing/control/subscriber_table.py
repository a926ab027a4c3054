"""Which Subscriptions belong to which channel, and the subscriber entry that each of them comes to.

The Subscription reconciler puts entries in, the backing-channel reconciler writes all of a channel's in one go. All of it
is worked out again from the objects after a restart.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from eventing.kube import Cache, Change
from eventing.reconcile import Key
from eventing.resources.kinds import Object

__all__ = ["ChannelName", "SubscriberTable", "channel_named_by"]

ChannelName = tuple[str, str, str, str]
"""Group, kind, namespace, name of a channel; versions of one group are the same channel."""


def channel_named_by(subscription: Object) -> ChannelName:
    """The channel that a Subscription refers to: always one of its own namespace."""
    reference = (subscription.get("spec") or {}).get("channel") or {}
    group = reference.get("apiVersion", "").rpartition("/")[0]
    return group, reference.get("kind", ""), subscription["metadata"].get("namespace", ""), reference.get("name", "")


class _Member(NamedTuple):
    """What has to be known of a Subscription to put a channel's in order."""

    made: str
    name: str
    uid: str
    leaving: bool


class SubscriberTable:
    """The Subscriptions by channel, and their entries by uid; calls `changed` for a channel that gains or loses one."""

    def __init__(self, subscriptions: Cache, changed: Callable[[ChannelName], None]) -> None:
        self._changed = changed
        self._by_channel: defaultdict[ChannelName, dict[Key, _Member]] = defaultdict(dict)
        self._entries: dict[str, bytes] = {}  # encoded: there are as many as Subscriptions
        self._failures: dict[ChannelName, str] = {}
        subscriptions.on_change(self._told)

    def keys_of(self, channel: ChannelName) -> list[Key]:
        return list(self._by_channel.get(channel, ()))

    def uids_of(self, channel: ChannelName) -> list[str]:
        """Of the Subscriptions of a channel that are not being deleted, the oldest first."""
        return [member.uid for member in sorted(self._by_channel.get(channel, {}).values()) if not member.leaving]

    def entry(self, uid: str) -> Object | None:
        """What the Subscription came to when its references last led somewhere, None where they have not yet."""
        entry = self._entries.get(uid)
        return None if entry is None else msgspec.json.decode(entry)

    def put(self, subscription: Object, entry: Object) -> None:
        """The Subscription comes to this entry."""
        uid = subscription["metadata"]["uid"]
        encoded = bytes(memoryview(msgspec.json.encode(entry)))
        if self._entries.get(uid) != encoded:
            self._entries[uid] = encoded
            self._changed(channel_named_by(subscription))

    def failure(self, channel: ChannelName) -> str | None:
        """Why the channel's entries could not be written, None where they could."""
        return self._failures.get(channel)

    def set_failure(self, channel: ChannelName, message: str | None) -> bool:
        """Note why writing failed, or that it no longer does; whether that is news."""
        if self._failures.get(channel) == message:
            return False
        if message is None:
            del self._failures[channel]
        else:
            self._failures[channel] = message
        return True

    def _told(self, change: Change) -> None:
        metadata: dict[str, Any] = change.obj["metadata"]
        channel = channel_named_by(change.obj)
        if change.type == "DELETED":
            self._by_channel[channel].pop(change.key, None)
            if not self._by_channel[channel]:
                del self._by_channel[channel]
            self._entries.pop(metadata["uid"], None)
            self._changed(channel)
            return
        leaving = bool(metadata.get("deletionTimestamp"))
        self._by_channel[channel][change.key] = _Member(
            sys.intern(metadata.get("creationTimestamp", "")), metadata["name"], metadata["uid"], leaving
        )
        if leaving:
            self._changed(channel)
