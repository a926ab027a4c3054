"""The controllers as a whole: what users see after what they do."""

import asyncio
import copy
import dataclasses
import logging
from typing import Any

import pytest

from eventing.channels import Provisioned
from eventing.control import Controllers
from eventing.errors import ApiError, EventingError
from eventing.resources.conditions import condition_of
from eventing.resources.kinds import Kind, Object


def status(mesh: Any, plural: str, name: str) -> Object:
    return (mesh.find(plural, name) or {}).get("status") or {}


def entries(mesh: Any, name: str = "orders", plural: str = "inmemorychannels") -> list[Object]:
    return ((mesh.find(plural, name) or {}).get("spec") or {}).get("subscribers") or []


async def test_channel_and_subscription_become_ready(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    subscription = await mesh.subscription(annotations={"eventing-mesh.dev/concurrency": "1", "other": "x"})
    await mesh.until_ready("channels", "orders")
    await mesh.until_ready("subscriptions", "sub")
    channel = status(mesh, "channels", "orders")
    assert channel["address"] == {"name": "http", "url": "http://localhost:8080/default/orders"}
    assert channel["observedGeneration"] == 1
    assert channel["channel"] == {
        "apiVersion": "messaging.knative.dev/v1",
        "kind": "InMemoryChannel",
        "name": "orders",
        "namespace": "default",
    }
    assert [condition["type"] for condition in channel["conditions"]] == [
        "Addressable",
        "BackingChannelReady",
        "DeadLetterSinkResolved",
        "EventPoliciesReady",
        "Ready",
    ]
    assert mesh.ready("channels", "orders", "DeadLetterSinkResolved") == ("True", "DeadLetterSinkNotConfigured")
    uid = subscription["metadata"]["uid"]
    assert entries(mesh) == [
        {
            "name": "sub",
            "uid": uid,
            "generation": 1,
            "subscriberUri": "http://sub.example.com/",
            "annotations": {"eventing-mesh.dev/concurrency": "1"},
        }
    ]
    await mesh.until(lambda: status(mesh, "channels", "orders").get("subscribers"))
    assert status(mesh, "channels", "orders")["subscribers"] == [{"uid": uid, "observedGeneration": 1, "ready": "True"}]
    assert status(mesh, "subscriptions", "sub")["physicalSubscription"] == {"subscriberUri": "http://sub.example.com/"}
    await mesh.until(mesh.events)
    assert mesh.events() == [("sub", "SubscriberSync", 1)]


async def test_many_subscriptions_come_in_few_writes_and_an_idle_mesh_writes_nothing(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    await mesh.until_ready("channels", "orders")
    before = mesh.api.writes["patch", "inmemorychannels"]
    names = [f"sub-{number}" for number in range(100)]
    for name in names:
        await mesh.subscription(name)
    await mesh.until_ready("subscriptions", *names)
    assert [entry["name"] for entry in entries(mesh)] != []
    assert mesh.api.writes["patch", "inmemorychannels"] - before < 60
    await mesh.until_still()
    mesh.api.writes.clear()
    for loop in mesh.controllers._loops.values():
        for key in list(loop._keys()):
            loop.enqueue(key)
    await mesh.until_still()
    assert mesh.api.writes == {}


async def test_what_becomes_ready_at_once_is_written_once(mesh: Any) -> None:
    """Steps on the way that nobody could read anyway are not written; tests of what lasts see that those are."""
    mesh.start()
    await mesh.channel()
    await mesh.subscription()
    await mesh.until_ready("subscriptions", "sub")
    await mesh.until_ready("channels", "orders")
    await mesh.until_still()
    writes = mesh.api.writes
    assert writes["patch", "subscriptions"] == 1
    assert writes["patch", "channels"] <= 2  # it may be ready before the Subscription is there
    assert writes["patch", "inmemorychannels"] <= 3


async def test_ready_waits_for_every_data_plane_process(mesh: Any) -> None:
    plane = mesh.start()
    await mesh.channel()
    await mesh.until_ready("channels", "orders")
    plane.applying.clear()
    await mesh.subscription()
    await mesh.until(
        lambda: mesh.ready("subscriptions", "sub", "ChannelReady")[1] == "SubscriptionNotMarkedReadyByChannel",
        lambda: [s["ready"] for s in status(mesh, "inmemorychannels", "orders").get("subscribers", [])] == ["Unknown"],
    )
    await mesh.until(lambda: mesh.ready("subscriptions", "sub", "AddedToChannel")[0] == "True")
    assert mesh.ready("subscriptions", "sub")[0] == "Unknown"
    await mesh.until(
        lambda: (
            (condition_of(mesh.find("subscriptions", "sub"), "ChannelReady") or {}).get("message")
            == "Subscription marked by Channel as Unknown: not applied by the data plane yet"
        )
    )
    plane.applying.set()
    await mesh.until_ready("subscriptions", "sub")
    # A second process that has applied nothing yet: not every event is due from now on.
    await mesh.api.write(
        "create", mesh.api.kinds["dataplanes"], {"metadata": {"namespace": "knative-eventing", "name": "plane-1"}}
    )
    await mesh.until(lambda: mesh.ready("subscriptions", "sub")[0] == "Unknown")
    await mesh.until(lambda: mesh.ready("channels", "orders")[0] == "Unknown")
    await mesh.api.delete(mesh.api.kinds["dataplanes"], "knative-eventing", "plane-1")
    await mesh.until_ready("subscriptions", "sub")


async def test_a_process_that_never_comes_back_is_not_waited_for(mesh: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kind = mesh.api.kinds["dataplanes"]
    await mesh.api.write("create", kind, {"metadata": {"namespace": "knative-eventing", "name": "gone"}})
    mesh.controllers = Controllers(
        mesh.api, factories={"memory": mesh.memory}, ingress_url="http://localhost:8080", data_planes=["plane-0"]
    )
    mesh.start()
    await mesh.channel()
    await mesh.subscription()
    await mesh.until_ready("subscriptions", "sub")
    assert mesh.find("dataplanes", "gone", "knative-eventing") is None
    assert "the DataPlane of a process that never comes back is removed" in caplog.messages
    # Nor is one that turns up later and is none of ours.
    await mesh.api.write("create", kind, {"metadata": {"namespace": "knative-eventing", "name": "other"}})
    await mesh.until_still()
    await mesh.subscription("second")
    await mesh.until_ready("subscriptions", "sub", "second")
    mesh.tasks[-1].cancel()
    await mesh.api.delete(kind, "knative-eventing", "plane-0")
    await mesh.until(lambda: mesh.ready("channels", "orders") == ("False", "DispatcherEndpointsNotReady"))


async def test_a_channel_that_lives_in_one_process_is_not_served_by_several(mesh: Any) -> None:
    def controllers(*planes: str) -> Controllers:
        factories = {"memory": mesh.memory, "durable": mesh.durable}
        return Controllers(mesh.api, factories=factories, ingress_url="http://localhost:8080", data_planes=planes)

    mesh.controllers = controllers("plane-0", "plane-1")
    first = mesh.start()
    second = type(first)(mesh.api, "plane-1", (mesh.durable.kind,))
    mesh.tasks.append(mesh.group.create_task(second.run()))
    await mesh.channel()
    await mesh.subscription()
    await mesh.channel("kept", channelTemplate={"apiVersion": "messaging.knative.dev/v1beta1", "kind": "DurableChannel"})
    await mesh.subscription("other", channel="kept")
    await mesh.until_ready("subscriptions", "other")
    named = [("inmemorychannels", "orders"), ("channels", "orders"), ("subscriptions", "sub")]
    await mesh.until(*(lambda who=who: mesh.ready(*who) == ("False", "NeedsOneWorker") for who in named))
    for who in named:
        text = (condition_of(mesh.find(*who)) or {})["message"]
        assert "this mesh runs 2: start it without --workers, or use a KafkaChannel" in text
    await mesh.until_still()
    assert [state["ready"] for state in status(mesh, "inmemorychannels", "orders")["subscribers"]] == ["False"]
    # Nobody reads what a Subscription that is gone has left: it is not waited for.
    await mesh.api.delete(mesh.api.kinds["subscriptions"], "default", "sub")
    await mesh.until(lambda: not status(mesh, "inmemorychannels", "orders").get("subscribers"))
    await mesh.subscription()
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("False", "NeedsOneWorker"))
    # Started again with one process it is ready by itself, although the other's object is still there.
    for task in (mesh.tasks[0], mesh.tasks[-1]):
        task.cancel()
    mesh.controllers = controllers("plane-0")
    mesh.tasks.append(mesh.group.create_task(mesh.controllers.run()))
    await mesh.until_ready("subscriptions", "sub", "other")
    assert mesh.find("dataplanes", "plane-1", "knative-eventing") is None


async def test_no_data_plane_is_said(mesh: Any) -> None:
    mesh.start(plane=False)
    await mesh.channel()
    await mesh.until(lambda: mesh.ready("channels", "orders") == ("False", "DispatcherEndpointsNotReady"))


async def test_readiness_follows_what_is_referred_to(mesh: Any) -> None:
    mesh.start()
    reference = {"apiVersion": "v1", "kind": "Service", "name": "shop"}
    await mesh.subscription(subscriber={"ref": reference, "uri": "/in"}, reply={"uri": "http://reply"})
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("Unknown", "ChannelReferenceFailed"))
    await mesh.channel()
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("False", "SubscriberResolveFailed"))
    assert entries(mesh) == []
    await mesh.apply("services", "shop", spec={"ports": [{"port": 80}]})
    await mesh.until_ready("subscriptions", "sub")
    assert entries(mesh)[0]["subscriberUri"] == "http://shop.default.svc.cluster.local/in"
    assert entries(mesh)[0]["replyUri"] == "http://reply"
    await mesh.api.delete(mesh.api.kinds["services"], "default", "shop")
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("False", "SubscriberResolveFailed"))
    assert "subscriberUri" not in status(mesh, "subscriptions", "sub")["physicalSubscription"]
    assert entries(mesh), "what is pending for it would be lost"
    await mesh.api.delete(mesh.api.kinds["channels"], "default", "orders")
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("Unknown", "ChannelReferenceFailed"))
    await mesh.until(lambda: mesh.find("inmemorychannels", "orders") is None)


async def test_channels_are_subscribers_and_reply_targets_too(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "next"}
    await mesh.subscription(subscriber={"ref": reference}, reply={"ref": reference})
    await mesh.until(lambda: mesh.ready("subscriptions", "sub") == ("False", "SubscriberResolveFailed"))
    await mesh.channel("next")
    await mesh.until_ready("subscriptions", "sub")
    assert entries(mesh)[0]["subscriberUri"] == "http://localhost:8080/default/next"


async def test_a_subscription_to_the_backing_channel_itself(mesh: Any) -> None:
    mesh.start()
    await mesh.apply("inmemorychannels", "orders", spec={"subscribers": [{"uid": "mine", "subscriberUri": "http://mine"}]})
    await mesh.subscription(channel="orders")
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "orders"}
    await mesh.apply("subscriptions", "direct", spec={"channel": reference, "subscriber": {"uri": "http://d"}})
    await mesh.until_ready("subscriptions", "direct")
    assert [entry.get("name") for entry in entries(mesh)] == [None, "direct"]


async def test_dead_letter_sinks_fall_back_and_delivery_is_replaced_whole(mesh: Any) -> None:
    mesh.start()
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "dead"}
    await mesh.channel(delivery={"retry": 3, "timeout": "PT5S", "deadLetterSink": {"ref": reference}})
    await mesh.subscription("plain")
    await mesh.subscription("own", delivery={"retry": 9})
    await mesh.until(lambda: mesh.ready("channels", "orders", "DeadLetterSinkResolved")[0] == "False")
    await mesh.until(lambda: mesh.ready("subscriptions", "own") == ("False", "DeadLetterSinkResolveFailed"))
    await mesh.channel("dead")
    await mesh.until_ready("subscriptions", "plain", "own")
    sink = {"uri": "http://localhost:8080/default/dead"}
    assert {entry["name"]: entry["delivery"] for entry in entries(mesh)} == {
        "plain": {"retry": 3, "timeout": "PT5S", "deadLetterSink": sink},
        "own": {"retry": 9, "deadLetterSink": sink},
    }
    assert status(mesh, "channels", "orders")["deadLetterSinkUri"] == sink["uri"]
    assert status(mesh, "subscriptions", "own")["physicalSubscription"]["deadLetterSinkUri"] == sink["uri"]


async def test_a_channel_that_is_just_made_is_no_cause_for_warnings(mesh: Any) -> None:
    mesh.start()
    await mesh.until(lambda: mesh.controllers.idle)
    spec = {"delivery": {"deadLetterSink": {"uri": "http://dead"}}}
    await asyncio.gather(mesh.apply("inmemorychannels", "orders", spec=spec), mesh.channel("front", **spec))
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "orders"}
    await mesh.apply("subscriptions", "behind", spec={"channel": reference, "subscriber": {"uri": "http://s"}})
    await mesh.subscription("before", channel="front")
    await mesh.until_ready("subscriptions", "behind", "before")
    await mesh.until_still()
    assert {(name, reason) for name, reason, _ in mesh.events()} == {("behind", "SubscriberSync"), ("before", "SubscriberSync")}


async def test_edits_and_deletions_reach_the_channel(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    for name in ("a", "b"):
        await mesh.subscription(name)
    await mesh.until_ready("subscriptions", "a", "b")
    await mesh.subscription("a", subscriber={"uri": "http://other"})
    await mesh.until(lambda: {entry["subscriberUri"] for entry in entries(mesh)} == {"http://other", "http://b.example.com/"})
    await mesh.until_ready("subscriptions", "a")
    assert status(mesh, "subscriptions", "a")["observedGeneration"] == 2
    gone = mesh.find("subscriptions", "b")["metadata"]["uid"]
    await mesh.api.delete(mesh.api.kinds["subscriptions"], "default", "b")
    await mesh.until(
        lambda: [entry["name"] for entry in entries(mesh)] == ["a"],
        lambda: len(status(mesh, "channels", "orders")["subscribers"]) == 1,
        lambda: mesh.memory.calls[f"remove {gone}"],
        lambda: ("b", "SubscriberRemoved", 1) in mesh.events(),
    )
    await mesh.subscription("a", annotations={"eventing-mesh.dev/concurrency": "7"})
    await mesh.until(lambda: "annotations" in entries(mesh)[0])


async def test_a_deleted_channel_takes_its_backing_channel_along_and_may_come_back(mesh: Any) -> None:
    mesh.start()
    template = {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "DurableChannel", "spec": {}}
    await mesh.channel(channelTemplate=template)
    await mesh.subscription()
    await mesh.until_ready("subscriptions", "sub")
    first = mesh.find("durablechannels", "orders")
    assert first["metadata"]["finalizers"] == ["channels.eventing-mesh.dev/provision"]
    await mesh.api.delete(mesh.api.kinds["channels"], "default", "orders")
    await mesh.channel(channelTemplate=template)
    await mesh.until(
        lambda: (mesh.find("durablechannels", "orders") or first)["metadata"]["uid"] != first["metadata"]["uid"],
        lambda: mesh.durable.calls["remove"],
    )
    await mesh.until_ready("subscriptions", "sub")
    assert len(entries(mesh, plural="durablechannels")) == 1


async def test_orphans_of_the_time_before_the_start_are_removed(mesh: Any) -> None:
    owner = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "orders", "uid": "x", "controller": True}
    obj: Object = {"metadata": {"namespace": "default", "name": "orders", "ownerReferences": [owner]}}
    await mesh.api.write("create", mesh.api.kinds["inmemorychannels"], obj)
    mesh.start()
    await mesh.until(lambda: mesh.find("inmemorychannels", "orders") is None)


async def test_a_backing_channel_of_somebody_else_is_not_taken_over(mesh: Any) -> None:
    mesh.start()
    await mesh.apply("inmemorychannels", "orders", spec={})
    await mesh.channel()
    await mesh.until(lambda: mesh.ready("channels", "orders") == ("False", "ChannelFailure"))
    await mesh.until(lambda: ("orders", "ChannelFailure", 1) in mesh.events())


async def test_a_back_end_that_is_not_installed_is_named(mesh: Any) -> None:
    mesh.start()
    await mesh.channel(channelTemplate={"apiVersion": "messaging.knative.dev/v1beta1", "kind": "KafkaChannel"})
    await mesh.until(lambda: mesh.ready("channels", "orders") == ("False", "ChannelFailure"))
    condition = next(c for c in status(mesh, "channels", "orders")["conditions"] if c["type"] == "Ready")
    assert "no back end is installed for KafkaChannel" in condition["message"]
    assert "installed: DurableChannel, InMemoryChannel" in condition["message"]


async def test_one_address_belongs_to_the_oldest_channel_of_the_name(mesh: Any) -> None:
    mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until_ready("durablechannels", "orders")
    await mesh.apply("inmemorychannels", "orders", spec={})
    await mesh.until(lambda: mesh.ready("inmemorychannels", "orders") == ("False", "AddressTaken"))
    assert "address" not in status(mesh, "inmemorychannels", "orders")
    await mesh.api.delete(mesh.api.kinds["durablechannels"], "default", "orders")
    await mesh.until_ready("inmemorychannels", "orders")


async def test_what_the_back_end_says_is_shown(mesh: Any) -> None:
    mesh.durable.says = Provisioned(False, "TopicFailed", "no broker answers")
    mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until(lambda: mesh.ready("durablechannels", "orders") == ("False", "TopicFailed"))


async def test_a_subscription_that_the_back_end_is_not_ready_for_is_held_back(mesh: Any) -> None:
    mesh.start()
    template = {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "DurableChannel"}
    await mesh.channel(channelTemplate=template)
    await mesh.until_ready("channels", "orders")
    mesh.durable.says_of_subscription = defaultdict_of(Provisioned(False, "GroupFailed", "no group"))
    await mesh.subscription()
    await mesh.until(lambda: status(mesh, "durablechannels", "orders").get("subscribers"))
    (state,) = status(mesh, "durablechannels", "orders")["subscribers"]
    assert (state["ready"], state["message"]) == ("False", "no group")
    assert entries(mesh, plural="durablechannels") == []


def defaultdict_of(value: Provisioned) -> Any:
    class Always(dict[str, Provisioned]):
        def get(self, _key: str, _default: Any = None) -> Any:
            return value

    return Always()


async def test_a_refused_write_is_shown_at_the_subscription(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    await mesh.until_ready("channels", "orders")

    def refuse(verb: str, kind: Kind, obj: Object) -> None:
        if kind.plural == "inmemorychannels" and (obj.get("spec") or {}).get("subscribers"):
            raise ApiError(422, "Invalid", "too many")

    mesh.api.refuse = refuse
    await mesh.subscription()
    await mesh.until(lambda: mesh.ready("subscriptions", "sub", "AddedToChannel") == ("False", "PhysicalChannelSyncFailed"))
    mesh.api.refuse = lambda *_: None
    await mesh.until_ready("subscriptions", "sub")


async def test_annotations_of_a_channel_reach_the_backing_channel(mesh: Any) -> None:
    mesh.start()
    await mesh.apply("channels", "orders", annotations={"eventing-mesh.dev/overflow": "refuse"}, spec={})
    await mesh.until_ready("channels", "orders")
    backing = mesh.find("inmemorychannels", "orders")
    assert backing["metadata"]["annotations"]["eventing-mesh.dev/overflow"] == "refuse"
    channel = copy.deepcopy(mesh.find("channels", "orders"))
    channel["metadata"]["annotations"] = {}
    await mesh.api.write("apply", mesh.api.kinds["channels"], channel)
    await mesh.until(
        lambda: "eventing-mesh.dev/overflow" not in mesh.find("inmemorychannels", "orders")["metadata"]["annotations"]
    )


async def test_a_restart_changes_nothing(mesh: Any) -> None:
    mesh.start()
    await mesh.channel()
    await mesh.subscription()
    await mesh.until_ready("subscriptions", "sub")
    await mesh.until_still()
    mesh.api.writes.clear()
    again = type(mesh)(mesh.group, mesh.api)
    again.tasks.append(mesh.group.create_task(again.controllers.run()))
    mesh.tasks += again.tasks
    await again.controllers.synced()
    await again.until_still()
    assert mesh.api.writes == {}


async def test_provisioners_are_closed(mesh: Any) -> None:
    mesh.start(plane=False)
    await mesh.controllers.synced()
    mesh.tasks[0].cancel()
    await mesh.until(lambda: mesh.memory.closed and mesh.durable.closed)


def test_errors_are_of_the_tree() -> None:
    from eventing.control.references import UnresolvedError

    assert issubclass(UnresolvedError, EventingError)


@pytest.mark.parametrize("number", range(3))
async def test_simultaneous_creation_in_any_order(mesh: Any, number: int) -> None:
    mesh.start()
    makers = [mesh.channel, lambda: mesh.subscription("a"), lambda: mesh.subscription("b")]
    for maker in makers[number:] + makers[:number]:
        await maker()
    await mesh.until_ready("subscriptions", "a", "b")


@pytest.mark.parametrize(
    ("plural", "spec", "text"),
    [
        ("channels", {}, "missing field(s): spec.channelTemplate"),
        ("subscriptions", {"channel": {"kind": "Channel"}}, "missing field(s): spec.channel.apiVersion, spec.channel.name"),
        ("inmemorychannels", {"delivery": {"deadLetterSink": {"ref": {}}}}, "missing field(s): spec.delivery.deadLetterSink.ref"),
    ],
)
async def test_an_object_that_passed_no_admission_is_told_what_is_wrong(mesh: Any, plural: str, spec: Object, text: str) -> None:
    """As on a cluster whose API server does not ask our admission."""
    kind = mesh.api.kinds[plural]
    mesh.api.kinds[plural] = dataclasses.replace(kind, default=lambda *_: None, validate=lambda *_: None)
    mesh.start()
    await mesh.apply(plural, "odd", spec=spec)
    await mesh.until(lambda: mesh.ready(plural, "odd") == ("False", "Invalid"))
    assert text in (condition_of(mesh.find(plural, "odd")) or {})["message"]
    template = {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "orders"}
    mended = {
        "channels": {"channelTemplate": template},
        "subscriptions": {"channel": reference, "subscriber": {"uri": "http://x"}},
        "inmemorychannels": {"delivery": {"deadLetterSink": {"ref": None, "uri": "http://x"}}},
    }
    await mesh.apply(plural, "odd", spec=mended[plural])
    mesh.api.kinds[plural] = kind
    await mesh.channel()
    await mesh.until_ready(plural, "odd")
