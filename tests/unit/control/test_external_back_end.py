"""Channels whose back end is outside the mesh: what it says, step by step, and that what it keeps is removed in its time."""

from typing import Any

from eventing.channels import Provisioned
from eventing.errors import EventingError
from eventing.resources.kinds import Object

TEMPLATE = {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "DurableChannel"}


class AwayError(EventingError):
    reason = "BackEndAway"


def status(mesh: Any) -> Object:
    return (mesh.find("durablechannels", "orders") or {}).get("status") or {}


async def test_the_steps_before_the_one_that_fails_are_done_and_those_after_it_are_not_known(mesh: Any) -> None:
    mesh.durable.says = Provisioned(False, "ConfigMapNotFound", "make it", step="ConfigParsed")
    mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until(lambda: mesh.ready("durablechannels", "orders") == ("False", "ConfigMapNotFound"))
    assert mesh.ready("durablechannels", "orders", "ConfigParsed") == ("False", "ConfigMapNotFound")
    assert mesh.ready("durablechannels", "orders", "TopicReady")[0] == "Unknown"

    mesh.durable.says = Provisioned(False, "TopicFailed", "no broker answers")
    mesh.durable.settings.change({"a": "b"}, None, "")  # which has it asked again
    await mesh.until(lambda: mesh.ready("durablechannels", "orders") == ("False", "TopicFailed"))
    assert mesh.ready("durablechannels", "orders", "ConfigParsed") == ("True", "")

    mesh.durable.says = Provisioned(True, annotations={"topic": "t"})
    mesh.durable.settings.change({"a": "c"}, None, "")
    await mesh.until_ready("durablechannels", "orders")
    assert status(mesh)["annotations"] == {"topic": "t"}


async def test_what_the_back_end_noted_stays_beside_what_it_notes_now(mesh: Any) -> None:
    mesh.durable.says = Provisioned(True, annotations={"one": "1", "two": "2"})
    mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until_ready("durablechannels", "orders")
    mesh.durable.says = Provisioned(True, annotations={"two": "II"})
    mesh.durable.settings.change({"a": "b"}, None, "")
    await mesh.until(lambda: status(mesh)["annotations"] == {"one": "1", "two": "II"})


async def test_the_back_end_is_asked_again_when_its_word_is_old(mesh: Any) -> None:
    mesh.durable.says = Provisioned(True, trust_s=0.0)
    mesh.start()
    await mesh.channel(channelTemplate=TEMPLATE)
    await mesh.until_ready("channels", "orders")
    mesh.durable.says = Provisioned(False, "TopicMismatch", "somebody has changed it")
    await mesh.subscription()  # anything that calls the channel in
    await mesh.until(lambda: mesh.ready("durablechannels", "orders") == ("False", "TopicMismatch"))


async def test_nothing_is_removed_before_the_data_plane_has_let_go(mesh: Any) -> None:
    plane = mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until_ready("durablechannels", "orders")
    plane.applying.clear()
    await mesh.api.delete(mesh.api.kinds["durablechannels"], "default", "orders")
    await mesh.until(lambda: (mesh.find("durablechannels", "orders") or {})["metadata"].get("deletionTimestamp"))
    await mesh.apply("durablechannels", "other", spec={})  # and what is asked for after it is done meanwhile
    await mesh.until(lambda: mesh.durable.calls["ensure"] >= 2)
    assert mesh.durable.calls["remove"] == 0
    plane.applying.set()
    await mesh.until(lambda: mesh.find("durablechannels", "orders") is None)
    assert mesh.durable.calls["remove"] == 1


async def test_a_removal_that_fails_says_why_and_how_to_do_without_it(mesh: Any) -> None:
    mesh.start()
    await mesh.apply("durablechannels", "orders", spec={})
    await mesh.until_ready("durablechannels", "orders")
    mesh.durable.removal_fails = AwayError("no broker answers")
    await mesh.api.delete(mesh.api.kinds["durablechannels"], "default", "orders")
    await mesh.until(lambda: mesh.ready("durablechannels", "orders") == ("False", "BackEndAway"))
    message = next(each["message"] for each in status(mesh)["conditions"] if each["type"] == "Ready")
    assert message.startswith("cannot be removed: no broker answers; it is tried again.")
    assert """kubectl patch durablechannels orders -n default --type=merge -p '{"metadata":{"finalizers":null}}'""" in message


async def test_a_subscription_that_cannot_be_removed_is_not_forgotten(mesh: Any) -> None:
    mesh.start()
    await mesh.channel(channelTemplate=TEMPLATE)
    gone = (await mesh.subscription())["metadata"]["uid"]
    await mesh.until_ready("subscriptions", "sub")
    mesh.durable.removal_fails = AwayError("it has members")
    await mesh.api.delete(mesh.api.kinds["subscriptions"], "default", "sub")
    held = {"uid": gone, "ready": "False", "message": "cannot be removed: it has members"}
    await mesh.until(lambda: status(mesh).get("subscribers") == [held])
    mesh.durable.removal_fails = None
    mesh.durable.settings.change({"a": "b"}, None, "")  # instead of the five seconds that it waits
    await mesh.until(lambda: status(mesh).get("subscribers") == [])
