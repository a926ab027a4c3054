"""Why a subscription gets its events or does not: its own conditions and the data plane's figures put together, as plain data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from eventing.journal.documents import Condition, Finding, Match, NotDue, Standing, Why
from eventing.resources.kinds import Object

__all__ = ["explain", "with_not_ready"]

_ACTIONS: Final = {
    "ChannelReferenceFailed": "make the channel, or correct spec.channel: kubectl get channels -n {namespace}",
    "NeedsOneWorker": "start the mesh without --workers, or make the channel a KafkaChannel (spec.channelTemplate)",
    "Resolving": "wait a moment: the channel is being made",
    "SubscriberResolveFailed": "correct spec.subscriber: what it refers to must exist and have an address",
    "ReplyResolveFailed": "correct spec.reply: what it refers to must exist and have an address",
    "DeadLetterSinkResolveFailed": "correct spec.delivery.deadLetterSink: what it refers to must exist and have an address",
    "PhysicalChannelSyncFailed": "look at the channel: kubectl describe channels -n {namespace}",
    "SubscriptionNotMarkedReadyByChannel": (
        "the data plane has not applied it yet: if that lasts, look at kubectl get channels -n {namespace}, and at the log"
    ),
}
_DEFAULT: Final = "look at it: kubectl describe subscription {name} -n {namespace}"


def explain(subscription: Object, standing: Standing | None) -> Why:
    """All that is known of a Subscription object and its standing."""
    metadata = subscription["metadata"]
    names = {"namespace": str(metadata.get("namespace", "")), "name": str(metadata["name"])}
    conditions = [_condition(each) for each in (subscription.get("status") or {}).get("conditions") or ()]
    ready = next((each for each in conditions if each.type == "Ready"), None)
    status = ready.status if ready is not None and ready.status in {"True", "False"} else "Unknown"
    findings = list(standing.findings) if standing is not None else []
    if metadata.get("deletionTimestamp"):
        findings.insert(0, Finding(severity="error", finding="it is being deleted", action="make it anew if it is wanted"))
    if status != "True":
        findings = [_not_ready(conditions, names), *(each for each in findings if each.severity != "ok")]
    elif standing is None:
        finding = "it is Ready, but the data plane does not have it in force: it may just have been made, or is being restarted"
        findings.append(Finding(severity="warning", finding=finding, action="ask again in a moment"))
    return Why(
        subscription=f"{names['namespace']}/{names['name']}",
        ready=cast("Literal['True', 'False', 'Unknown']", status),
        ready_since=ready.since if ready is not None else "",
        conditions=conditions,
        standing=standing,
        findings=findings,
    )


def _condition(condition: Mapping[str, Any]) -> Condition:
    return Condition(
        type=str(condition.get("type", "")),
        status=str(condition.get("status", "Unknown")),
        reason=str(condition.get("reason") or ""),
        message=str(condition.get("message") or ""),
        since=str(condition.get("lastTransitionTime") or ""),
    )


def _not_ready(conditions: Sequence[Condition], names: Mapping[str, str]) -> Finding:
    unmet = [each for each in conditions if each.status != "True" and each.reason]
    if not unmet:
        finding = "it is not Ready: no controller has looked at it yet"
        return Finding(severity="error", finding=finding, action="wait a moment; if that lasts, look at the mesh's log")
    unmet.sort(key=lambda each: (each.status != "False", each.type == "Ready"))
    first = unmet[0]
    action = _ACTIONS.get(first.reason, _DEFAULT).format(**names)
    return Finding(severity="error", finding=f"it is not Ready: {first.reason}: {first.message}", action=action)


def with_not_ready(match: Match, subscriptions: Iterable[Object]) -> Match:
    """The match with the channel's Subscriptions that the data plane knows nothing of: they are not Ready, and so were due
    nothing."""
    if match.kept == "disk":  # of before a restart: what is not Ready now says nothing about then
        return match
    namespace, _, name = match.channel.partition("/")
    known = {each.subscription for each in match.deliveries} | {each.subscription for each in match.not_due}
    added = []
    for subscription in subscriptions:
        metadata = subscription["metadata"]
        full = f"{metadata.get('namespace', '')}/{metadata['name']}"
        if metadata.get("namespace") != namespace or subscription["spec"]["channel"].get("name") != name or full in known:
            continue
        why = explain(subscription, None)
        if why.ready != "True":
            text = why.findings[0].finding
            added.append(NotDue(subscription=full, uid=str(metadata.get("uid", "")), reason="NotReady", explanation=text))
    return msgspec.structs.replace(match, not_due=[*match.not_due, *added])
