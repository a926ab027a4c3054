"""All controllers together: one loop per kind, and which change calls in which key.

Every kind: a change of the object itself, of an object that it owns, and of one that it tracks. Beside that:

Subscription ──▶ subscriptions ──(entry)──▶ backing channel ──spec.subscribers──▶ data plane
     ▲                                          ▲     │                              │
     └───────────── status.subscribers ─────────│─────┴──▶ Channel                   │
                                                └────────── DataPlane.status ◀───────┘
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from eventing.channels import BackEndSettings, ChannelFactory
from eventing.control.backing import BackingReconciler
from eventing.control.not_installed import NotInstalled
from eventing.control.planes import DataPlanes
from eventing.control.reconciler import KindReconciler, kind_reconcilers
from eventing.control.recorder import EventRecorder
from eventing.control.references import References, Watcher
from eventing.control.status import FIELD_MANAGER
from eventing.control.subscriber_table import ChannelName, SubscriberTable
from eventing.control.world import Backing, World
from eventing.errors import ApiError
from eventing.kube import Cache, Change, KubeClient, SettingsFollower, controller_of
from eventing.observe.health import Check, State
from eventing.reconcile import Key, ReconcileLoop, Reconciler
from eventing.resources.conditions import condition_of
from eventing.resources.core import SERVICE
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION

if TYPE_CHECKING:
    from eventing.observe.control_exposition import ControllersCollector

__all__ = ["Controllers"]

_log = logging.getLogger(__name__)

_BACKING_WORKERS = 4
LAG_PAUSE_S = 0.02  # on average, between two Subscriptions whose lag is written


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Controllers:
    """The eventing controllers over one client, which stays the caller's.

    `ingress_ca` is what must be trusted to speak to an https ingress, PEM. `now` is the clock of what is written into objects;
    waiting is done by the event loop's own. `reconcilers` are all of this package unless given. `data_planes` are
    the names of the data-plane processes that are run, where whoever runs them says so; else every DataPlane object stands for
    one.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        factories: Mapping[str, ChannelFactory],
        ingress_url: str,
        ingress_ca: str = "",
        now: Callable[[], datetime] = _utc_now,
        rand: random.Random | None = None,
        resync_s: float = 600.0,
        reconcilers: Sequence[type[KindReconciler]] | None = None,
        data_planes: Collection[str] | None = None,
    ) -> None:
        reconcilers = kind_reconcilers() if reconcilers is None else reconcilers
        self._rand = rand or random.Random()  # noqa: S311 - spreads load and names Events, guards nothing
        self._client = client
        self._synced = asyncio.Event()
        self._loops: dict[str, ReconcileLoop] = {}
        caches: dict[tuple[str, str], Cache] = {}
        for kind in [kind for each in reconcilers for kind in (each.kind, *each.owns)]:
            if (kind.group, kind.kind) not in caches:
                caches[kind.group, kind.kind] = self._cache(kind)
        channels, subscriptions = (caches[kind.group, kind.kind] for kind in (CHANNEL, SUBSCRIPTION))
        planes = self._cache(DATA_PLANE, DATA_PLANE_NAMESPACE)
        self._backings = {
            (factory.kind.group, factory.kind.kind): Backing(factory, self._cache(factory.kind)) for factory in factories.values()
        }
        followed = [*caches.values(), *(backing.cache for backing in self._backings.values())]
        services = self._cache(SERVICE)
        self._followed = followed
        self._caches = [*followed, services, planes]
        self._world = world = World(
            client=client,
            now=now,
            rand=self._rand,
            channels=channels,
            subscriptions=subscriptions,
            backings=self._backings,
            table=SubscriberTable(subscriptions, self._subscribers_changed),
            planes=DataPlanes(planes, self._reported, self._lagging, data_planes),
            references=References(client, [*followed, services], changed=self._call_in, new_cache=self._cache),
            recorder=EventRecorder(client, component=FIELD_MANAGER, now=now, rand=self._rand),
            call_in=self._call_in,
            caches=caches,
        )
        self._settings = {
            key: SettingsFollower(client, backing.factory.config_map)
            for key, backing in self._backings.items()
            if backing.factory.config_map
        }
        self._provisioners = [
            NotInstalled(backing.factory.missing)
            if backing.factory.missing
            else backing.factory.provisioner(self._settings[key].settings if key in self._settings else BackEndSettings())
            for key, backing in self._backings.items()
        ]
        self._reconcilers = {
            backing.kind.plural: BackingReconciler(world, backing, provisioner, ingress_url=ingress_url, ingress_ca=ingress_ca)
            for backing, provisioner in zip(self._backings.values(), self._provisioners, strict=True)
        }
        self._plurals = {(each.kind.group, each.kind.kind): each.kind.plural for each in reconcilers}

        def loop(reconciler: Reconciler, cache: Cache, workers: int) -> None:
            self._loops[cache.kind.plural] = ReconcileLoop(
                reconciler, keys=cache.keys, workers=workers, resync_s=resync_s, rand=self._rand
            )
            cache.on_change(partial(self._changed, cache.kind.plural))

        for each in reconcilers:
            loop(each(world), world.cache(each.kind), each.workers)
        for backing in self._backings.values():
            loop(self._reconcilers[backing.kind.plural], backing.cache, _BACKING_WORKERS)
            backing.cache.on_change(partial(self._backing_changed, backing))
        for key, follower in self._settings.items():
            follower.settings.on_change(partial(self._settings_changed, self._backings[key]))
        for cache in followed:
            cache.on_change(self._owned_changed)
        channels.on_change(self._channel_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for cache in self._caches:
                    group.create_task(cache.run(), name=f"cache-{cache.kind.plural}")
                group.create_task(self._world.references.run(), name="references")
                group.create_task(self._world.recorder.run(), name="events")
                for follower in self._settings.values():
                    group.create_task(follower.run(), name="settings")
                for follower in self._settings.values():
                    await follower.synced()
                # Working on half of what there is would take the other half for deleted.
                for cache in self._caches:
                    await cache.synced()
                await self._remove_left_over()
                self._synced.set()
                for name, loop in self._loops.items():
                    group.create_task(loop.run(), name=name)
        finally:
            async with contextlib.AsyncExitStack() as stack:
                for provisioner in self._provisioners:
                    stack.push_async_callback(provisioner.aclose)

    async def _remove_left_over(self) -> None:
        for plane in self._world.planes.left_over():
            metadata = plane["metadata"]
            _log.info("the DataPlane of a process that never comes back is removed", extra={"data_plane": metadata["name"]})
            try:
                await self._client.delete(DATA_PLANE, metadata["namespace"], metadata["name"], uid=metadata["uid"])
            except ApiError as error:
                # Nobody waits for it anyway; the next start tries again.
                _log.warning("it is not removed: %s", error.message)

    async def synced(self) -> None:
        """Wait until everything there is has been listed and the loops are at work."""
        await self._synced.wait()

    def collector(self) -> "ControllersCollector":
        """For `/metrics`."""
        from eventing.observe.control_exposition import ControllersCollector  # when somebody scrapes

        return ControllersCollector(
            loops=lambda: [(name, loop.metrics, loop.due, loop.waiting) for name, loop in self._loops.items()],
            readiness=self._readiness,
        )

    def _readiness(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for cache in self._followed:
            kind = cache.kind
            resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
            found.update((resource, str((condition_of(obj) or {}).get("status", "Unknown"))) for obj in cache.list())
        return found

    def checks(self) -> list[Check]:
        """For `/readyz`: whether the controllers are at work, and whom they hear from."""
        if not self._synced.is_set():
            missing = ", ".join(cache.kind.plural for cache in self._caches if not cache.is_synced)
            return [Check("controllers", State.FAILED, f"not listed yet: {missing}")]
        live, workers = self._world.planes.live, self._world.planes.workers
        told = f"{live} of {workers} reporting" if live < workers else f"{live} reporting"
        if not live:
            told = "no data-plane process has reported: no channel becomes ready, and nobody takes events"
        return [
            Check("controllers", State.OK, ", ".join(self._loops)),
            Check("dataplanes", State.OK if live >= workers else State.DEGRADED, told),
        ]

    @property
    def idle(self) -> bool:
        """No key is due or in work anywhere."""
        return self._synced.is_set() and all(loop.idle for loop in self._loops.values())

    def _cache(self, kind: Kind, namespace: str | None = None) -> Cache:
        return Cache(self._client, kind, namespace, rand=self._rand)

    def _call_in(self, watcher: Watcher) -> None:
        name, key = watcher
        self._loops[name].enqueue(key)

    def _changed(self, plural: str, change: Change) -> None:
        if not change.own:
            self._loops[plural].enqueue(change.key)

    def _owned_changed(self, change: Change) -> None:
        """What an object owns has changed: call in the object."""
        owner = controller_of(change.obj)
        if owner is not None:
            group = owner.get("apiVersion", "").rpartition("/")[0]
            plural = self._plurals.get((group, owner.get("kind", "")))
            if plural is not None:
                self._loops[plural].enqueue((change.key[0], owner.get("name", "")))

    def _channel_changed(self, change: Change) -> None:
        if change.type == "MODIFIED" and change.old is not None and _readiness(change.obj) == _readiness(change.old):
            return
        for key in self._world.table.keys_of((CHANNEL.group, CHANNEL.kind, *change.key)):
            self._loops["subscriptions"].enqueue(key)
        if change.type != "MODIFIED" and (backing := self._world.backing_of(change.obj)) is not None:
            self._loops[backing.kind.plural].enqueue(change.key)

    def _subscribers_changed(self, name: ChannelName) -> None:
        """A channel has gained or lost a subscriber: call in the backing channel, not more often than it can write."""
        group, kind, *rest = name
        key: Key = (rest[0], rest[1])
        if (group, kind) == (CHANNEL.group, CHANNEL.kind):
            channel = self._world.channels.get(*key)
            backing = self._world.backing_of(channel) if channel is not None else None
        else:
            backing = self._backings.get((group, kind))
        if backing is None:
            return
        plural = backing.kind.plural
        if (pause_s := self._reconcilers[plural].pause_s(key)) > 0:
            self._loops[plural].enqueue_after(key, pause_s)
        else:
            self._loops[plural].enqueue(key)

    def _backing_changed(self, backing: Backing, change: Change) -> None:
        key = change.key
        if self._world.channels.get(*key) is not None:
            # It may be in the way of a Channel of its name, or no longer be.
            self._loops["channels"].enqueue(key)
        if change.type != "MODIFIED":
            # Who has the address of that name may have changed.
            for other in self._backings.values():
                if other is not backing and other.cache.get(*key) is not None:
                    self._loops[other.kind.plural].enqueue(key)
        for subscription in _touched(self._world, backing, change):
            self._loops["subscriptions"].enqueue(subscription)

    def _settings_changed(self, backing: Backing) -> None:
        """A back end is set up anew: what it said before counts no more."""
        self._reconcilers[backing.kind.plural].distrust()
        for key in backing.cache.keys():  # noqa: SIM118 - a method, not a mapping's
            self._loops[backing.kind.plural].enqueue(key)

    def _reported(self, name: str | None) -> None:
        """A data-plane process has applied a channel (or all are concerned: one has come or gone)."""
        for backing in self._backings.values():
            if name is None:
                for key in backing.cache.keys():  # noqa: SIM118 - a method, not a mapping's
                    self._loops[backing.kind.plural].enqueue(key)
            else:
                resource, namespace, channel = name.split("/", 2)
                if resource == f"{backing.kind.plural}.{backing.kind.group}":
                    self._loops[backing.kind.plural].enqueue((namespace, channel))

    def _lagging(self, subscription: str) -> None:
        """A Subscription is behind, or not any more. Many may be at once, and nobody waits for it: they take their time."""
        namespace, _, name = subscription.partition("/")
        if self._world.subscriptions.get(namespace, name) is not None:
            delay_s = self._rand.random() * LAG_PAUSE_S * self._world.planes.behind
            self._loops["subscriptions"].enqueue_after((namespace, name), delay_s)


def _readiness(channel: Object) -> tuple[object, ...]:
    """What of a channel concerns all its Subscriptions."""
    ready = condition_of(channel) or {}
    spec, status = channel.get("spec") or {}, channel.get("status") or {}
    return (
        ready.get("status"),
        ready.get("reason"),
        spec.get("delivery"),
        spec.get("channelTemplate"),
        status.get("deadLetterSinkUri"),
        status.get("deadLetterSinkCACerts"),
        channel["metadata"].get("deletionTimestamp"),
    )


def _touched(world: World, backing: Backing, change: Change) -> list[Key]:
    """The Subscriptions that a change of a backing channel concerns: mostly those whose entries differ."""
    if change.type != "MODIFIED" or change.old is None or _readiness(change.obj) != _readiness(change.old):
        return [key for name in world.names_of(backing, change.obj) for key in world.table.keys_of(name)]
    namespace = change.key[0]
    uids: set[str] = set()
    for part in ("spec", "status"):
        new, old = (
            {entry.get("uid", ""): entry for entry in (obj.get(part) or {}).get("subscribers") or ()}
            for obj in (change.obj, change.old)
        )
        uids |= {uid for uid in new.keys() | old.keys() if new.get(uid) != old.get(uid)}
    entries = (change.obj.get("spec") or {}).get("subscribers") or ()
    return [(namespace, entry["name"]) for entry in entries if entry.get("uid") in uids and entry.get("name")]
