"""A Subscription's own word on itself, put together with the data plane's."""

from typing import Any

import pytest

from eventing.journal.documents import Counts, Data, Finding, Match, Standing
from eventing.runtime.why import explain, with_not_ready
from tests.support.manifests import subscription_object

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
ALL_WELL = Finding(severity="ok", finding="events are delivered", action="nothing to do")


def standing(*findings: Finding) -> Standing:
    counts = Counts(
        window_s=300.0, accepted=1, attempts=1, delivered=1, retrying=0, dead_lettered={}, dropped={}, statuses={}, complete=True
    )
    return Standing(
        subscription="default/printer", uid="u", channel="default/orders", subscriber="http://s/", since="", pending=0,
        pending_bytes=0, oldest_s=None, in_flight=0, concurrency=10, dead_letter_sink="", counts=counts, last_failure=None,
        findings=list(findings),
    )  # fmt: skip


def subscription(*conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    obj = subscription_object(namespace="default", uid="u", **metadata)
    return obj | ({"status": {"conditions": list(conditions)}} if conditions else {})


def test_ready_and_in_force() -> None:
    why = explain(subscription(READY), standing(ALL_WELL))
    assert (why.ready, why.ready_since, why.findings) == ("True", "2026-01-01T00:00:00Z", [ALL_WELL])


def test_ready_and_not_in_force() -> None:
    (finding,) = explain(subscription(READY), None).findings
    assert (finding.severity, finding.action) == ("warning", "ask again in a moment")


@pytest.mark.parametrize(
    ("reason", "action"),
    [("ChannelReferenceFailed", "kubectl get channels -n default"), ("SubscriberResolveFailed", "spec.subscriber"),
     ("ReplyResolveFailed", "spec.reply"), ("DeadLetterSinkResolveFailed", "spec.delivery.deadLetterSink"),
     ("PhysicalChannelSyncFailed", "look at the channel"), ("SubscriptionNotMarkedReadyByChannel", "has not applied it yet"),
     ("SomethingNew", "kubectl describe subscription printer -n default")],
)  # fmt: skip
def test_each_reason_not_to_be_ready_has_advice_and_comes_first(reason: str, action: str) -> None:
    unmet = {"type": "ReferencesResolved", "status": "False", "reason": reason, "message": "so it is"}
    unknown = {"type": "ChannelReady", "status": "Unknown", "reason": "Waiting", "message": "later"}
    ready = {"type": "Ready", "status": "False", "reason": reason, "message": "so it is"}
    warning = Finding(severity="warning", finding="slow", action="x")
    why = explain(subscription(unknown, ready, unmet), standing(ALL_WELL, warning))
    assert why.ready == "False"
    assert why.findings[0].finding == f"it is not Ready: {reason}: so it is"
    assert action in why.findings[0].action
    assert why.findings[1:] == [warning], "what is well is not said of what is not Ready"


def test_nobody_has_looked_at_it_yet_and_it_is_going() -> None:
    assert "no controller has looked" in explain(subscription(), None).findings[0].finding
    going = explain(subscription(READY, deletionTimestamp="2026-01-01T00:00:00Z"), standing(ALL_WELL))
    assert going.findings[0].finding == "it is being deleted"


def test_subscriptions_that_the_data_plane_does_not_know() -> None:
    not_ready = {"type": "Ready", "status": "False", "reason": "SubscriberResolveFailed", "message": "missing"}
    match = Match(
        receipt="r", id="1", source="/s", type="t", channel="default/orders", received="", from_="", attributes={}, data=Data(size=0, kept=True, text=""),
        deliveries=[], not_due=[], kept="memory",
    )  # fmt: skip
    other = subscription(not_ready, name="elsewhere")
    other["spec"]["channel"]["name"] = "other"
    found = with_not_ready(match, [subscription(not_ready), subscription(READY, name="ready"), other]).not_due
    assert [(each.subscription, each.reason) for each in found] == [("default/printer", "NotReady")]
    assert "SubscriberResolveFailed: missing" in found[0].explanation
