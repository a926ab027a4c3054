"""Channel: makes the backing channel that its template asks for, and shows that one's state as its own.

Steps and the condition that each owns: the backing channel exists, is this Channel's, and is ready (BackingChannelReady);
it has an address (Addressable); the dead-letter sink leads somewhere (DeadLetterSinkResolved).
"""

from typing import Final

from eventing.control import reasons
from eventing.control.reconciler import KindReconciler, Settling
from eventing.control.references import UnresolvedError, targets
from eventing.control.status import FIELD_MANAGER, deleted, key_of
from eventing.control.world import Backing, World, owner_channel
from eventing.errors import ApiError, ApiUnavailableError, ObjectConflictError, ObjectExistsError, ObjectNotFoundError
from eventing.reconcile import Again, Done, Key, Outcome
from eventing.resources.conditions import Conditions, ConditionSet, condition_of
from eventing.resources.kinds import Object
from eventing.resources.messaging import CHANNEL
from eventing.resources.subscribers import OPTION_PREFIX

__all__ = ["ChannelReconciler", "mark_dead_letter_sink"]

_NOT_INHERITED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class ChannelReconciler(KindReconciler):
    """Reconciles `channels.messaging.knative.dev`."""

    kind = CHANNEL
    conditions = ConditionSet(
        reasons.BACKING_CHANNEL_READY,
        reasons.ADDRESSABLE,
        reasons.DEAD_LETTER_SINK_RESOLVED,
        reasons.EVENT_POLICIES_READY,
    )

    async def reconcile(self, key: Key) -> Outcome:
        if self.objects.get(*key) is None:
            await self._remove_orphans(key)
        # What stands behind a Channel that is being deleted goes with it; making it again now would only be in the way.
        return await super().reconcile(key)

    async def bring_about(self, channel: Object, status: Object, conditions: Conditions) -> Outcome | Settling:
        key = key_of(channel)
        conditions.mark_true(reasons.EVENT_POLICIES_READY, reasons.OIDC_DISABLED, reasons.NO_AUTHORISATION)
        outcome = await mark_dead_letter_sink(self._world, (self.name, key), channel, status, conditions)
        backing = self._world.backing_of(channel)
        behind: Object | None = None
        if backing is None:
            conditions.mark_false(reasons.BACKING_CHANNEL_READY, reasons.CHANNEL_FAILURE, self._not_installed(channel))
        else:
            try:
                behind = await self._ensure_backing(channel, backing)
            except (ObjectConflictError, ApiUnavailableError):
                raise
            except ApiError as error:
                # The API server refuses it: the user reads why, and it is tried again in case that was fixed elsewhere.
                conditions.mark_false(reasons.BACKING_CHANNEL_READY, reasons.CHANNEL_FAILURE, error.message)
                outcome = Again(30.0)
            else:
                status["channel"] = {
                    "apiVersion": backing.kind.api_version, "kind": backing.kind.kind, "namespace": key[0], "name": key[1]
                }  # fmt: skip
                _propagate(behind, status, conditions)
        if behind is None:
            for field in ("address", "addresses", "subscribers"):
                status.pop(field, None)
            conditions.mark_false(reasons.ADDRESSABLE, reasons.EMPTY_HOSTNAME, reasons.NO_HOSTNAME)
            failed = conditions.get(reasons.BACKING_CHANNEL_READY) or {}
            if failed.get("status") == "False":
                # Why there is no backing channel says more than that there is no address.
                conditions.mark_false(reasons.BACKING_CHANNEL_READY, failed["reason"], failed.get("message", ""))
        if behind is not None and outcome == Done() and condition_of(behind) is None:
            return Settling()  # just made: its own reconciler and the data plane are about to say how it is
        return outcome

    async def _ensure_backing(self, channel: Object, backing: Backing) -> Object | None:
        """The backing channel, made if need be; None while an older Channel's is still being removed."""
        namespace, name = key_of(channel)
        current = backing.cache.get(namespace, name)
        if current is None:
            wanted = _backing_channel(channel, backing)
            try:
                return await self._world.client.create(backing.kind, wanted, field_manager=FIELD_MANAGER)
            except ObjectExistsError:
                current = await self._world.client.get(backing.kind, namespace, name)
        owner = owner_channel(current)
        if owner is None:
            raise ApiError(
                409,
                "AlreadyExists",
                f'{backing.kind.plural}.{backing.kind.group} "{name}" exists and is not this Channel\'s',
            )
        if owner.get("uid") != channel["metadata"]["uid"]:
            await self._delete(backing, current)
            return None
        await self._inherit(channel, current, backing)
        return current

    async def _inherit(self, channel: Object, current: Object, backing: Backing) -> None:
        """Annotations are the one thing of a Channel that users may edit and a back end reads."""
        wanted = _annotations(channel)
        present = current["metadata"].get("annotations") or {}
        changes: Object = {name: value for name, value in wanted.items() if present.get(name) != value}
        changes |= {name: None for name in present if name.startswith(OPTION_PREFIX) and name not in wanted}
        if changes:
            body = {"metadata": {"uid": current["metadata"]["uid"], "annotations": changes}}
            await self._world.client.patch(backing.kind, *key_of(channel), body, field_manager=FIELD_MANAGER)

    async def _remove_orphans(self, key: Key) -> None:
        """The Channel is gone. Garbage collection removes what it owned; this does so where nobody collects."""
        for backing in self._world.backings.values():
            current = backing.cache.get(*key)
            if current is not None and not deleted(current) and owner_channel(current) is not None:
                await self._delete(backing, current)

    async def _delete(self, backing: Backing, current: Object) -> None:
        if deleted(current):
            return
        try:
            await self._world.client.delete(backing.kind, *key_of(current), uid=current["metadata"]["uid"])
        except (ObjectNotFoundError, ObjectConflictError):
            # Gone already, or another one by now, which is not ours to delete.
            return

    def _not_installed(self, channel: Object) -> str:
        template = channel["spec"].get("channelTemplate") or {}
        installed = ", ".join(sorted(kind for _, kind in self._world.backings))
        return f"no back end is installed for {template.get('kind')} ({template.get('apiVersion')}); installed: {installed}"

    def announce(self, channel: Object, conditions: Conditions) -> None:
        before = condition_of(channel, reasons.BACKING_CHANNEL_READY) or {}
        after = conditions.get(reasons.BACKING_CHANNEL_READY) or {}
        failed = after.get("status") == "False" and after.get("reason") == reasons.CHANNEL_FAILURE
        if failed and before.get("message") != after.get("message"):
            self._world.recorder.record(channel, "Warning", reasons.CHANNEL_FAILURE, after.get("message", ""))


async def mark_dead_letter_sink(
    world: World, watcher: tuple[str, Key], channel: Object, status: Object, conditions: Conditions
) -> Outcome:
    """Resolve `spec.delivery.deadLetterSink` into the status; the step is the same for Channels and backing channels."""
    for field in ("deadLetterSinkUri", "deadLetterSinkCACerts", "deadLetterSinkAudience"):
        status.pop(field, None)
    sink = ((channel.get("spec") or {}).get("delivery") or {}).get("deadLetterSink")
    namespace = watcher[1][0]
    world.references.track(watcher, targets(namespace, sink))
    if not sink:
        conditions.mark_true(
            reasons.DEAD_LETTER_SINK_RESOLVED, reasons.DEAD_LETTER_SINK_NOT_CONFIGURED, reasons.NO_DEAD_LETTER_SINK
        )
        return Done()
    try:
        resolved = await world.references.resolve(sink, namespace)
    except UnresolvedError as error:
        conditions.mark_false(reasons.DEAD_LETTER_SINK_RESOLVED, reasons.DEAD_LETTER_SINK_UNRESOLVED, str(error))
        return Again(error.retry_after) if error.retry_after is not None else Done()
    status["deadLetterSinkUri"] = resolved.uri
    if resolved.ca_certs:
        status["deadLetterSinkCACerts"] = resolved.ca_certs
    if resolved.audience:
        status["deadLetterSinkAudience"] = resolved.audience
    conditions.mark_true(reasons.DEAD_LETTER_SINK_RESOLVED)
    return Done()


def _propagate(behind: Object | None, status: Object, conditions: Conditions) -> None:
    """Show the backing channel's readiness, address and subscribers as the Channel's own."""
    ready = condition_of(behind) if behind is not None else None
    if ready is None:
        conditions.mark_unknown(reasons.BACKING_CHANNEL_READY, reasons.BACKING_CHANNEL_NOT_CONFIGURED, reasons.NOT_YET_RECONCILED)
    elif ready["status"] == "True":
        conditions.mark_true(reasons.BACKING_CHANNEL_READY)
    elif ready["status"] == "False":
        conditions.mark_false(reasons.BACKING_CHANNEL_READY, ready.get("reason", ""), ready.get("message", ""))
    else:
        conditions.mark_unknown(reasons.BACKING_CHANNEL_READY, ready.get("reason", ""), ready.get("message", ""))
    if behind is None:
        return
    shown = behind.get("status") or {}
    for field in ("address", "addresses", "subscribers"):
        if shown.get(field):
            status[field] = shown[field]
        else:
            status.pop(field, None)
    if (shown.get("address") or {}).get("url"):
        conditions.mark_true(reasons.ADDRESSABLE)
    elif ready is not None:
        conditions.mark_false(reasons.ADDRESSABLE, reasons.EMPTY_HOSTNAME, reasons.NO_HOSTNAME)
        if ready["status"] == "False":
            # The backing channel's own word says why.
            conditions.mark_false(reasons.BACKING_CHANNEL_READY, ready.get("reason", ""), ready.get("message", ""))
    else:
        conditions.mark_unknown(reasons.ADDRESSABLE)


def _annotations(channel: Object) -> dict[str, str]:
    annotations = channel["metadata"].get("annotations") or {}
    return {name: value for name, value in annotations.items() if name != _NOT_INHERITED}


def _backing_channel(channel: Object, backing: Backing) -> Object:
    spec = dict(channel["spec"]["channelTemplate"].get("spec") or {})
    if channel["spec"].get("delivery"):
        spec["delivery"] = channel["spec"]["delivery"]
    namespace, name = key_of(channel)
    owner = {
        "apiVersion": CHANNEL.api_version,
        "kind": CHANNEL.kind,
        "name": name,
        "uid": channel["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {"name": name, "namespace": namespace, "annotations": _annotations(channel), "ownerReferences": [owner]}
    return {"apiVersion": backing.kind.api_version, "kind": backing.kind.kind, "metadata": metadata, "spec": spec}
