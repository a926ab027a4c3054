"""Backing channels of every kind: provisioned in their back end, given their subscribers, reported ready.

Steps and the condition that each owns: what the channel needs in the back end; the data-plane processes that serve it (both
named by the factory's ChannelConditions); its address (Addressable); its dead-letter sink. The subscribers are written with one
request however many Subscriptions have changed.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from eventing.channels import Provisioned, Provisioner
from eventing.control import reasons
from eventing.control.channel import mark_dead_letter_sink
from eventing.control.status import FIELD_MANAGER, begin_status, deleted, fault_of, key_of, write_status
from eventing.control.world import Backing, World
from eventing.errors import ApiError, ApiUnavailableError, EventingError, ObjectConflictError, ObjectNotFoundError
from eventing.reconcile import Again, Done, Key, Outcome
from eventing.resources.conditions import Conditions, ConditionSet
from eventing.resources.dataplane import needs_one_worker
from eventing.resources.kinds import Object
from eventing.resources.messaging import SUBSCRIPTION
from eventing.resources.subscribers import read_subscribers

__all__ = ["BackingReconciler"]

FINALIZER: Final = "channels.eventing-mesh.dev/provision"

_TRUST_S: Final = 600.0  # how long a subscription is taken to be what the back end said it is
_UNREADY_RETRY_S: Final = 5.0
_LEAVE_S: Final = 30.0  # how long data-plane processes may keep a channel that is being deleted before it is removed under them
_REPORT_S: Final = 0.25  # how long the data plane may take before the status says that it is waited for
_NOT_REMOVED: Final = "cannot be removed: "
_WRITE_SHARE: Final = 4.0  # a write that took t is followed by the next after 4t at the earliest …
_LONGEST_PAUSE_S: Final = 1.0  # … or after this


@dataclass(slots=True)
class _Memory:
    """What the reconciler knows of one channel beyond the objects; forgetting it costs requests, nothing else."""

    uid: str
    provisioned: Provisioned | None = None
    provisioned_for: Any = None
    trusted_until: float = 0.0
    ensured: dict[str, tuple[Any, float]] = field(default_factory=dict)  # Subscription uid -> its annotations, trusted until
    written: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # uid -> entry, generation that brought it
    not_before: float = 0.0
    awaited: int = 0  # generation that the data plane is to report …
    report_due: float = 0.0  # … until then
    remove_by: float = 0.0  # it is being deleted, and the data plane has until then to let go of it


class BackingReconciler:
    """Reconciles the channels of one back end."""

    def __init__(
        self, world: World, backing: Backing, provisioner: Provisioner, *, ingress_url: str, ingress_ca: str = ""
    ) -> None:
        self.name = backing.kind.plural
        self._world = world
        self._backing = backing
        self._provisioner = provisioner
        self._ingress_url = ingress_url.rstrip("/")
        self._ingress_ca = ingress_ca
        self._memory: dict[Key, _Memory] = {}
        # A back end that keeps nothing outside the mesh needs no finalizer; one that does not say may do so.
        self._finalizes = bool(getattr(backing.factory, "external", True))
        self._named = backing.factory.conditions
        self._conditions = ConditionSet(
            *self._named.always,
            *self._named.served,
            reasons.ADDRESSABLE,
            *self._named.provision,
            reasons.DEAD_LETTER_SINK_RESOLVED,
            reasons.EVENT_POLICIES_READY,
        )

    @property
    def _unserved(self) -> str:
        """Why the data plane does not serve these channels, "" where it does."""
        workers = self._world.planes.workers
        return needs_one_worker(self._backing.kind, workers) if workers > 1 and not self._backing.factory.shared else ""

    def pause_s(self, key: Key) -> float:
        """How long to wait before the channel's subscribers are written again: 0 unless that was just done at length."""
        memory = self._memory.get(key)
        return max(0.0, memory.not_before - asyncio.get_running_loop().time()) if memory else 0.0

    def distrust(self) -> None:
        """Ask the back end about everything again: it is another one now, or reached in another way."""
        for memory in self._memory.values():
            memory.trusted_until = 0.0
            memory.ensured.clear()

    async def reconcile(self, key: Key) -> Outcome:
        channel = self._backing.cache.get(*key)
        if channel is None:
            self._memory.pop(key, None)
            self._backing.forget(key)
            self._world.references.track((self.name, key), ())
            return Done()
        if deleted(channel):
            return await self._finalise(channel)
        if fault := fault_of(self._backing.kind, channel):
            status = begin_status(channel)
            self._conditions.manage(status, self._world.now).mark_false(reasons.READY, reasons.INVALID, fault)
            await write_status(self._world.client, self._backing.cache, channel, status)
            return Done()
        memory = self._memory.get(key)
        if memory is None or memory.uid != channel["metadata"]["uid"]:
            memory = self._memory[key] = _Memory(channel["metadata"]["uid"])
        if self._finalizes:
            channel = await self._ensure_finalizer(channel)
        await self._provision(channel, memory)
        wanted, unready = await self._wanted_subscribers(channel, memory)
        if wanted != ((channel.get("spec") or {}).get("subscribers") or []):
            if (pause := self.pause_s(key)) > 0:
                return Again(pause)
            channel = await self._write_subscribers(channel, wanted, memory)
        if (wait_s := self._report_due_s(channel, memory)) > 0:
            # The data plane is about to say that it has applied it; one status then says it all.
            return Again(wait_s)
        return await self._write_status(channel, memory, unready)

    def _report_due_s(self, channel: Object, memory: _Memory) -> float:
        """How long the data plane may still take to report the generation, until the status says that it is waited for."""
        generation = int(channel["metadata"].get("generation", 1))
        planes = self._world.planes
        if self._unserved or not planes.live or (planes.generation(self._backing.kind, channel) or 0) >= generation:
            return 0.0
        now = asyncio.get_running_loop().time()
        if memory.awaited != generation:
            memory.awaited = generation
            memory.report_due = now + _REPORT_S
        return memory.report_due - now

    async def _write_status(self, channel: Object, memory: _Memory, unready: dict[str, Provisioned]) -> Outcome:
        key = key_of(channel)
        status = begin_status(channel)
        conditions = self._conditions.manage(status, self._world.now)
        conditions.mark_true(reasons.EVENT_POLICIES_READY, reasons.OIDC_DISABLED, reasons.NO_AUTHORISATION)
        for type_ in self._named.always:
            conditions.mark_true(type_)
        outcome = await mark_dead_letter_sink(self._world, (self.name, key), channel, status, conditions)
        self._mark_provisioned(memory, status, conditions)
        applied = self._world.planes.generation(self._backing.kind, channel)
        self._mark_endpoints(applied, conditions)
        self._mark_address(channel, status, conditions)
        states = self._subscriber_states(channel, memory, applied, unready)
        states += await self._remove_gone(channel, memory, applied, {state["uid"] for state in states})
        if states or "subscribers" in status:
            status["subscribers"] = states
        await write_status(self._world.client, self._backing.cache, channel, status)
        provisioned = memory.provisioned
        stuck = any(state.get("message", "").startswith(_NOT_REMOVED) for state in states)
        if unready or stuck or provisioned is None or not provisioned.ready:
            return Again(_UNREADY_RETRY_S)
        if outcome == Done() and self._finalizes:
            # What is outside the mesh changes without anybody telling.
            return Again(max(_UNREADY_RETRY_S, memory.trusted_until - asyncio.get_running_loop().time()))
        return outcome

    # Provision.

    async def _ensure_finalizer(self, channel: Object) -> Object:
        present = channel["metadata"].get("finalizers") or []
        if FINALIZER in present:
            return channel
        return await self._patch_metadata(channel, {"finalizers": [*present, FINALIZER]})

    async def _finalise(self, channel: Object) -> Outcome:
        present = channel["metadata"].get("finalizers") or []
        if FINALIZER not in present:
            return Done()
        now = asyncio.get_running_loop().time()
        memory = self._memory.setdefault(key_of(channel), _Memory(channel["metadata"]["uid"]))
        memory.remove_by = memory.remove_by or now + _LEAVE_S
        if self._world.planes.serves(self._backing.kind, channel) and now < memory.remove_by:
            return Again(min(1.0, memory.remove_by - now))  # its report calls us in before
        try:
            await self._provisioner.remove(channel)
        except EventingError as error:
            return await self._not_removed(channel, error)
        try:
            await self._patch_metadata(channel, {"finalizers": [name for name in present if name != FINALIZER] or None})
        except ObjectNotFoundError:
            return Done()
        return Done()

    async def _not_removed(self, channel: Object, error: EventingError) -> Outcome:
        """Say what holds the deletion up, and how to do without it."""
        namespace, name = key_of(channel)
        message = (
            f"{_NOT_REMOVED}{error}; it is tried again. To let the channel go and leave that where it is: kubectl patch "
            f'{self._backing.kind.plural} {name} -n {namespace} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\''
        )
        status = begin_status(channel)
        self._conditions.manage(status, self._world.now).mark_false(reasons.READY, _reason_of(error), message)
        await write_status(self._world.client, self._backing.cache, channel, status)
        return Again(_UNREADY_RETRY_S)

    async def _patch_metadata(self, channel: Object, changes: Object) -> Object:
        metadata = channel["metadata"]
        body = {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"], **changes}}
        written = await self._world.client.patch(self._backing.kind, *key_of(channel), body, field_manager=FIELD_MANAGER)
        self._backing.cache.remember(written)
        return written

    async def _provision(self, channel: Object, memory: _Memory) -> None:
        """Ask the back end when something that it may read has changed, when it was not ready, and now and then."""
        spec = {name: value for name, value in (channel.get("spec") or {}).items() if name != "subscribers"}
        what = (spec, channel["metadata"].get("annotations"))
        now = asyncio.get_running_loop().time()
        known = memory.provisioned
        if known is not None and known.ready and memory.provisioned_for == what and now < memory.trusted_until:
            return
        try:
            memory.provisioned = await self._provisioner.ensure(channel)
        except EventingError as error:
            memory.provisioned = Provisioned(False, _reason_of(error), str(error))
        memory.provisioned_for = what
        memory.trusted_until = asyncio.get_running_loop().time() + memory.provisioned.trust_s

    def _mark_provisioned(self, memory: _Memory, status: Object, conditions: Conditions) -> None:
        """The steps before the one that the back end speaks of are done, those after it are not known."""
        provisioned = memory.provisioned or Provisioned(None)
        if provisioned.annotations:
            status["annotations"] = {**(status.get("annotations") or {}), **provisioned.annotations}
        *_, last = steps = self._named.provision
        speaking = provisioned.step or last
        done = steps.index(speaking)
        for type_ in steps[:done]:
            conditions.mark_true(type_)
        for type_ in steps[done + 1 :]:
            conditions.mark_unknown(type_, provisioned.reason, provisioned.message)
        if provisioned.ready:
            conditions.mark_true(speaking, provisioned.reason, provisioned.message)
        elif provisioned.ready is None:
            conditions.mark_unknown(speaking, provisioned.reason, provisioned.message)
        else:
            conditions.mark_false(speaking, provisioned.reason or reasons.CHANNEL_SERVICE_FAILED, provisioned.message)

    # Subscribers.

    async def _wanted_subscribers(self, channel: Object, memory: _Memory) -> tuple[list[Object], dict[str, Provisioned]]:
        """The entries that spec.subscribers is to hold, and by uid the Subscriptions that the back end is not ready for.

        An entry without a name was written by a user who made the backing channel himself, and stays.
        """
        present = {entry.get("uid"): entry for entry in (channel.get("spec") or {}).get("subscribers") or ()}
        wanted = [entry for entry in present.values() if not entry.get("name")]
        unready: dict[str, Provisioned] = {}
        now = asyncio.get_running_loop().time()
        for name in self._world.names_of(self._backing, channel):
            for uid in self._world.table.uids_of(name):
                # Not resolved, since the controller started or now: the last entry stays, or what is pending would be lost.
                entry = self._world.table.entry(uid) or present.get(uid)
                if entry is None:
                    continue
                annotations, trusted_until = memory.ensured.get(uid, (None, 0.0))
                if trusted_until <= now or annotations != entry.get("annotations"):
                    provisioned = await self._ensure_subscription(channel, entry)
                    if provisioned.ready:
                        memory.ensured[uid] = entry.get("annotations"), now + _TRUST_S
                    else:
                        unready[uid] = provisioned
                        if uid not in present:
                            continue  # before the data plane is told, the back end must keep events for it
                wanted.append(entry)
        return wanted, unready

    async def _ensure_subscription(self, channel: Object, entry: Object) -> Provisioned:
        try:
            (subscriber,) = read_subscribers({"metadata": channel["metadata"], "spec": {"subscribers": [entry]}})
            return await self._provisioner.ensure_subscription(channel, subscriber)
        except EventingError as error:
            return Provisioned(False, _reason_of(error), str(error))

    async def _write_subscribers(self, channel: Object, wanted: list[Object], memory: _Memory) -> Object:
        loop = asyncio.get_running_loop()
        began = loop.time()
        metadata = channel["metadata"]
        key = key_of(channel)
        body = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "spec": {"subscribers": wanted},
        }
        names = self._world.names_of(self._backing, channel)
        try:
            written = await self._world.client.patch(self._backing.kind, *key, body, field_manager=FIELD_MANAGER)
        except (ObjectConflictError, ObjectNotFoundError, ApiUnavailableError):
            raise
        except ApiError as error:
            for name in names:
                if self._world.table.set_failure(name, error.message):
                    for subscription in self._world.table.keys_of(name):
                        self._world.call_in(("subscriptions", subscription))
            raise
        memory.not_before = loop.time() + min(_LONGEST_PAUSE_S, _WRITE_SHARE * (loop.time() - began))
        for name in names:
            self._world.table.set_failure(name, None)
        self._tell_removed(channel, wanted)
        self._backing.cache.remember(written)
        return written

    def _tell_removed(self, channel: Object, wanted: list[Object]) -> None:
        kept = {entry.get("uid") for entry in wanted}
        namespace, name = key_of(channel)
        for entry in (channel.get("spec") or {}).get("subscribers") or ():
            if entry.get("uid") not in kept and entry.get("name"):
                about = {
                    "apiVersion": SUBSCRIPTION.api_version,
                    "kind": SUBSCRIPTION.kind,
                    "metadata": {"namespace": namespace, "name": entry["name"], "uid": entry["uid"]},
                }
                message = f'Subscription was removed from channel "{name}"'
                self._world.recorder.record(about, "Normal", reasons.SUBSCRIBER_REMOVED, message)

    def _subscriber_states(
        self, channel: Object, memory: _Memory, applied: int | None, unready: dict[str, Provisioned]
    ) -> list[Object]:
        """status.subscribers: ready when every live process has applied the generation that brought the entry."""
        generation = int(channel["metadata"].get("generation", 1))
        states: list[Object] = []
        written: dict[str, tuple[bytes, int]] = {}
        for entry in (channel.get("spec") or {}).get("subscribers") or ():
            uid = entry.get("uid", "")
            brought = memory.written.get(uid)
            encoded = bytes(memoryview(msgspec.json.encode(entry)))
            if brought is None or brought[0] != encoded:
                # Not seen before: the present generation holds it, whichever brought it.
                brought = (encoded, generation)
            written[uid] = brought
            state: Object = {"uid": uid, "observedGeneration": entry.get("generation", 0)}
            if uid in unready:
                state |= _unready(unready[uid])
            elif self._unserved:
                state |= {"ready": "False", "message": self._unserved}
            elif applied is not None and applied >= brought[1]:
                state["ready"] = "True"
            else:
                message = "no data plane is running" if not self._world.planes.live else "not applied by the data plane yet"
                state |= {"ready": "Unknown", "message": message}
            states.append(state)
        memory.written = written
        held = [uid for uid in unready if uid not in written]
        states += [{"uid": uid, "observedGeneration": 0} | _unready(unready[uid]) for uid in held]
        return states

    async def _remove_gone(self, channel: Object, memory: _Memory, applied: int | None, present: set[str]) -> list[Object]:
        """What the back end keeps for Subscriptions that are gone goes too, once no process reads it any more.

        Until then they stay in the status, which is how this is not forgotten if the controller dies in between.
        """
        states: list[Object] = []
        reached = (applied or 0) >= int(channel["metadata"].get("generation", 1))
        read_no_more = reached or not self._world.planes.live or bool(self._unserved)
        for state in (channel.get("status") or {}).get("subscribers") or ():
            uid = state.get("uid", "")
            if uid in present:
                continue
            if read_no_more:
                try:
                    await self._provisioner.remove_subscription(channel, uid)
                except EventingError as error:
                    states.append({"uid": uid, "ready": "False", "message": f"{_NOT_REMOVED}{error}"})
                else:
                    memory.ensured.pop(uid, None)
            else:
                states.append({"uid": uid, "ready": "False", "message": "being removed"})
        return states

    # Address and endpoints.

    def _mark_endpoints(self, applied: int | None, conditions: Conditions) -> None:
        for type_ in self._named.served:
            if self._unserved:
                conditions.mark_false(type_, reasons.NEEDS_ONE_WORKER, self._unserved)
            elif applied is not None:
                conditions.mark_true(type_)
            elif self._world.planes.live:
                message = "not every data-plane process has applied the channel yet"
                conditions.mark_unknown(type_, reasons.ENDPOINTS_NOT_READY, message)
            else:
                message = "There are no endpoints ready for Dispatcher service: no data plane is running"
                conditions.mark_false(type_, self._named.unserved_reason, message)

    def _mark_address(self, channel: Object, status: Object, conditions: Conditions) -> None:
        """NAMESPACE/NAME belongs to the oldest channel of that name, whatever its kind."""
        namespace, name = key_of(channel)
        rivals = [
            (other["metadata"].get("creationTimestamp", ""), backing.kind.kind)
            for backing in self._world.backings.values()
            if (other := backing.cache.get(namespace, name)) is not None
        ]
        owner = min(rivals)[1] if rivals else self._backing.kind.kind
        url = f"{self._ingress_url}/{namespace}/{name}"
        if owner == self._backing.kind.kind:
            status["address"] = {"name": url.partition(":")[0], "url": url}
            if self._ingress_ca:
                status["address"]["CACerts"] = self._ingress_ca
            conditions.mark_true(reasons.ADDRESSABLE)
        else:
            status.pop("address", None)
            conditions.mark_false(reasons.ADDRESSABLE, reasons.ADDRESS_TAKEN, f"{url} is the address of an older {owner}")


def _reason_of(error: EventingError) -> str:
    return getattr(error, "reason", "") or reasons.CHANNEL_SERVICE_FAILED


def _unready(provisioned: Provisioned) -> Object:
    message = provisioned.message or provisioned.reason or "not provisioned yet"
    return {"ready": "False" if provisioned.ready is False else "Unknown", "message": message}
