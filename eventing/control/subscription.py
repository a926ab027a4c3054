"""Subscription: resolves what it refers to, works out its subscriber entry, and follows what the channel makes of it.

Steps and the condition that each owns: find the channel and resolve the destinations (ReferencesResolved), be in the
backing channel's spec (AddedToChannel), be ready there (ChannelReady). The entry itself is written by the backing channel's
reconciler, all of a channel's in one go. A Subscription needs no finalizer: what is in a channel and no longer among the
Subscriptions is taken out.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from eventing.control import reasons
from eventing.control.reconciler import KindReconciler, Settling
from eventing.control.references import Resolved, Target, UnresolvedError, targets
from eventing.control.status import key_of
from eventing.control.subscriber_table import channel_named_by
from eventing.control.world import Backing
from eventing.reconcile import Again, Done, Outcome
from eventing.resources.conditions import Conditions, ConditionSet, condition_of, is_ready
from eventing.resources.kinds import Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from eventing.resources.subscribers import OPTION_PREFIX

__all__ = ["SubscriptionReconciler"]


@dataclass(frozen=True, slots=True)
class _Found:
    """The channel that a Subscription refers to, and the backing channel behind it (which may be the same)."""

    referred: Object
    channel: Object
    backing: Backing


class SubscriptionReconciler(KindReconciler):
    """Reconciles `subscriptions.messaging.knative.dev`."""

    kind = SUBSCRIPTION
    conditions = ConditionSet(
        reasons.REFERENCES_RESOLVED, reasons.ADDED_TO_CHANNEL, reasons.CHANNEL_READY, reasons.OIDC_IDENTITY_CREATED
    )
    workers = 8

    async def bring_about(self, subscription: Object, status: Object, conditions: Conditions) -> Outcome | Settling:
        conditions.mark_true(reasons.OIDC_IDENTITY_CREATED, reasons.OIDC_DISABLED, reasons.NO_OIDC)
        self.track(key_of(subscription), _targets(subscription))
        outcome: Outcome = Done()
        found = self._find_channel(subscription, conditions)
        if found is not None:
            try:
                entry = await self._resolve(subscription, found, status)
            except _ReferenceError as error:
                mark = conditions.mark_unknown if error.reason == reasons.RESOLVING else conditions.mark_false
                mark(reasons.REFERENCES_RESOLVED, error.reason, str(error))
                if error.retry_after is not None:
                    outcome = Again(error.retry_after)
            else:
                conditions.mark_true(reasons.REFERENCES_RESOLVED)
                self._world.table.put(subscription, entry)
                self._follow_channel(subscription, found, entry, conditions)
        status.pop("lag", None)
        if (lag := self._world.planes.lag(subscription["metadata"]["uid"])) is not None:
            status["lag"] = lag
        if outcome == Done() and self._settling(conditions):
            return Settling()
        return outcome

    @staticmethod
    def _settling(conditions: Conditions) -> bool:
        """Nothing is wrong, and the channel's reconciler or the data plane is about to say more."""
        resolved, added = (conditions.get(type_) or {} for type_ in (reasons.REFERENCES_RESOLVED, reasons.ADDED_TO_CHANNEL))
        if resolved.get("status") != "True":
            return resolved.get("status") == "Unknown" and resolved.get("reason") == reasons.RESOLVING
        return added.get("status") == "Unknown" or (
            added.get("status") == "True" and conditions.status_of(reasons.CHANNEL_READY) == "Unknown"
        )

    def _find_channel(self, subscription: Object, conditions: Conditions) -> _Found | None:
        group, kind, namespace, name = channel_named_by(subscription)
        world = self._world
        why = reasons.CHANNEL_REFERENCE_FAILED
        if (group, kind) == (CHANNEL.group, CHANNEL.kind):
            referred = world.channels.get(namespace, name)
            backing = world.backing_of(referred) if referred is not None else None
            channel = world.behind(referred) if referred is not None else None
            if referred is None:
                missing = f'channels.{group} "{name}" not found'
            elif backing is None:
                missing = f'the back end of channels.{group} "{name}" is not installed'
            else:
                why = reasons.RESOLVING  # nobody's fault: the Channel's reconciler is about to make it
                missing = f'the backing channel of channels.{group} "{name}" does not exist yet'
        else:
            backing = world.backings.get((group, kind))
            referred = channel = backing.cache.get(namespace, name) if backing is not None else None
            if backing is None:
                missing = f'no kind of channel is named "{kind}" in group "{group}"'
            else:
                missing = f'{backing.kind.plural}.{group} "{name}" not found'
        if channel is not None and backing is not None and referred is not None:
            return _Found(referred, channel, backing)
        message = f"Failed to get Spec.Channel or backing channel: {missing}"
        for condition in (reasons.CHANNEL_READY, reasons.ADDED_TO_CHANNEL, reasons.REFERENCES_RESOLVED):
            conditions.mark_unknown(condition, why, message)
        return None

    async def _resolve(self, subscription: Object, found: _Found, status: Object) -> Object:
        """The subscriber entry; `status.physicalSubscription` holds what could be resolved, also where not all could."""
        spec: dict[str, Any] = subscription["spec"]
        namespace = subscription["metadata"].get("namespace", "")
        physical: Object = {}
        status["physicalSubscription"] = physical
        for field, reason in (
            ("subscriber", reasons.SUBSCRIBER_RESOLVE_FAILED),
            ("reply", reasons.REPLY_RESOLVE_FAILED),
        ):
            if spec.get(field):
                resolved = await self._destination(spec[field], namespace, f"spec.{field}", reason)
                physical |= _fields(resolved, f"{field}Uri", f"{field}CACerts", f"{field}Audience")
        sink = (spec.get("delivery") or {}).get("deadLetterSink")
        if sink:
            resolved = await self._destination(
                sink, namespace, "spec.delivery.deadLetterSink", reasons.DEAD_LETTER_SINK_RESOLVE_FAILED
            )
            physical |= _fields(resolved, "deadLetterSinkUri", "deadLetterSinkCACerts", "deadLetterSinkAudience")
        else:
            physical |= _channel_dead_letter_sink(found.channel)
        return _entry(subscription, found.channel, physical, found.backing.factory.options)

    async def _destination(self, destination: Object, namespace: str, where: str, reason: str) -> Resolved:
        try:
            return await self._world.references.resolve(destination, namespace)
        except UnresolvedError as error:
            raise _ReferenceError(reason, f"Failed to resolve {where}: {error}", error.retry_after) from error

    def _follow_channel(self, subscription: Object, found: _Found, entry: Object, conditions: Conditions) -> None:
        written, state = found.backing.subscriber(found.channel, entry["uid"])
        if written != entry or (state or {}).get("observedGeneration") != entry["generation"]:
            state = None  # it speaks of an earlier entry
        ready = str(state.get("ready", "Unknown")) if state is not None else "Unknown"
        failure = self._world.table.failure(channel_named_by(subscription))
        # Just written, and the data plane is about to answer: what it says and this are told in one write.
        if state is not None:
            conditions.mark_true(reasons.ADDED_TO_CHANNEL)
        elif written != entry and failure is not None:
            message = f"Failed to sync physical Channel: {failure}"
            conditions.mark_false(reasons.ADDED_TO_CHANNEL, reasons.PHYSICAL_CHANNEL_SYNC_FAILED, message)
        elif written != entry:
            conditions.mark_unknown(reasons.ADDED_TO_CHANNEL)
        why = reasons.SUBSCRIPTION_NOT_MARKED_READY
        channel_ready = condition_of(found.channel) or {}
        if state is None:
            names = f'"{entry["name"]}" not present in channel "{found.channel["metadata"]["name"]}"'
            message = f"Failed to get subscription status: subscription {names} subscriber's list"
            conditions.mark_unknown(reasons.CHANNEL_READY, why, message)
        elif ready == "False" and channel_ready.get("reason") == reasons.NEEDS_ONE_WORKER:
            conditions.mark_false(reasons.CHANNEL_READY, reasons.NEEDS_ONE_WORKER, channel_ready.get("message", ""))
        elif ready != "True":
            message = ": ".join(filter(None, (f"Subscription marked by Channel as {ready}", state.get("message"))))
            mark = conditions.mark_false if ready == "False" else conditions.mark_unknown
            mark(reasons.CHANNEL_READY, why, message)
        elif channel_ready.get("status") != "True" or (found.referred is not found.channel and not is_ready(found.referred)):
            reason = channel_ready.get("reason") or "its status is not there yet"
            conditions.mark_unknown(reasons.CHANNEL_READY, why, f"the channel is not ready: {reason}")
        else:
            conditions.mark_true(reasons.CHANNEL_READY)

    def announce(self, subscription: Object, conditions: Conditions) -> None:
        """Kubernetes Events where a condition has changed, never for a state that lasts."""
        for type_ in (reasons.REFERENCES_RESOLVED, reasons.ADDED_TO_CHANNEL):
            before = condition_of(subscription, type_) or {}
            after = conditions.get(type_) or {}
            if (before.get("status"), before.get("reason"), before.get("message")) == (
                after.get("status"), after.get("reason"), after.get("message")
            ):  # fmt: skip
                continue
            reason = after.get("reason")
            if reason and after.get("status") != "True":
                # What the first condition has said the second need not repeat, and what is under way is no warning.
                known = type_ == reasons.ADDED_TO_CHANNEL and reason == reasons.CHANNEL_REFERENCE_FAILED
                if not known and reason != reasons.RESOLVING:
                    self._world.recorder.record(subscription, "Warning", reason, after.get("message", ""))
            elif type_ == reasons.ADDED_TO_CHANNEL and after.get("status") == "True":
                message = f'Subscription was synchronized to channel "{channel_named_by(subscription)[3]}"'
                self._world.recorder.record(subscription, "Normal", reasons.SUBSCRIBER_SYNC, message)


class _ReferenceError(UnresolvedError):
    """A destination leads nowhere; `reason` is that of the condition."""

    def __init__(self, reason: str, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


def _targets(subscription: Object) -> list[Target]:
    """What the Subscription's destinations refer to (its channel calls it in by the subscriber table)."""
    spec = subscription["spec"]
    sink = (spec.get("delivery") or {}).get("deadLetterSink")
    return targets(subscription["metadata"].get("namespace", ""), spec.get("subscriber"), spec.get("reply"), sink)


def _fields(resolved: Resolved, uri: str, ca_certs: str, audience: str) -> Object:
    values = ((uri, resolved.uri), (ca_certs, resolved.ca_certs), (audience, resolved.audience))
    return {field: value for field, value in values if value}


def _channel_dead_letter_sink(channel: Object) -> Object:
    """The channel's own dead-letter sink, where it has one: it stands in for Subscriptions that name none."""
    wanted = ((channel.get("spec") or {}).get("delivery") or {}).get("deadLetterSink")
    status = channel.get("status") or {}
    if wanted and not status.get("deadLetterSinkUri"):
        # Events must not be dropped because the sink that is to get them is not known yet.
        message = f"channel {channel['metadata']['name']} didn't set status.deadLetterSinkURI"
        looked_at = condition_of(channel, reasons.DEAD_LETTER_SINK_RESOLVED) is not None
        raise _ReferenceError(reasons.DEAD_LETTER_SINK_RESOLVE_FAILED if looked_at else reasons.RESOLVING, message, None)
    names = ("deadLetterSinkUri", "deadLetterSinkCACerts", "deadLetterSinkAudience")
    return {name: status[name] for name in names if status.get(name)}


def _entry(subscription: Object, channel: Object, physical: Object, options: Collection[str]) -> Object:
    metadata = subscription["metadata"]
    entry: Object = {"name": metadata["name"], "uid": metadata["uid"], "generation": metadata.get("generation", 1)}
    for field in ("subscriberUri", "subscriberCACerts", "subscriberAudience", "replyUri", "replyCACerts", "replyAudience"):
        if field in physical:
            entry[field] = physical[field]
    # The more specific delivery replaces the other whole; only the dead-letter sink falls back.
    delivery = copy.deepcopy(subscription["spec"].get("delivery") or (channel.get("spec") or {}).get("delivery") or {})
    delivery.pop("deadLetterSink", None)
    sink = {
        field: physical[name]
        for field, name in (
            ("uri", "deadLetterSinkUri"),
            ("CACerts", "deadLetterSinkCACerts"),
            ("audience", "deadLetterSinkAudience"),
        )
        if name in physical
    }
    if sink:
        delivery["deadLetterSink"] = sink
    if delivery:
        entry["delivery"] = delivery
    annotations: dict[str, str] = metadata.get("annotations") or {}
    entered = {name: value for name, value in annotations.items() if name.startswith(OPTION_PREFIX) or name in options}
    if entered:
        entry["annotations"] = entered
    return entry
