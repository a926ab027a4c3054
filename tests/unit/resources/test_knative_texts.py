"""What is refused, and in which words: 90 objects and what Knative's own webhooks (v0.47) said of each, recorded by
tests/support/knativetexts."""

import json
from pathlib import Path
from typing import Any

import pytest

from eventing.errors import InvalidObjectError
from eventing.resources.catalogue import installed_kinds
from eventing.resources.kinds import Admission
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from tests.support.admission import verdict

KINDS = {kind.kind: kind for kind in installed_kinds()}
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("knative_texts.json").read_text())
# Ours says beside Knative's words what to do.
HINT = '"spec.subscribers" cannot be changed directly: create a Subscription'


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['kind']}-{vector['text'][:60]}")
def test_each_object_is_refused_in_knatives_words_or_taken(vector: dict[str, Any]) -> None:
    assert verdict(KINDS[vector["kind"]], vector).removesuffix(HINT) == vector["text"]


def test_the_recorded_cases_are_many_of_each() -> None:
    for kind in ("Channel", "InMemoryChannel", "Subscription"):
        texts = {vector["text"] for vector in VECTORS if vector["kind"] == kind}
        assert "" in texts
        assert len(texts) >= 7


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # What Knative tells by the address of a Go pointer, or byte by byte, is told so that it can be read.
        ({}, {"retry": 2}, '*{v1.ChannelSpec}.ChannelableSpec.Delivery.Retry:\n\t-: ""\n\t+: "2"\n'),
        (
            {"deadLetterSink": {"uri": "http://a/x?y"}},
            {"deadLetterSink": {"uri": "https://a/z"}},
            '{v1.ChannelSpec}.ChannelableSpec.Delivery.DeadLetterSink.URI.Path:\n\t-: "/x"\n\t+: "/z"\n',
        ),
    ],
)
def test_an_immutable_field_that_comes_or_goes(old: Any, new: Any, line: str) -> None:
    template = {"apiVersion": "a/v1", "kind": "X"}
    before, after = ({"metadata": {"name": "c"}, "spec": {"channelTemplate": template, "delivery": d}} for d in (old, new))
    with pytest.raises(InvalidObjectError) as caught:
        CHANNEL.validate(after, before, Admission("u", "UPDATE"))
    assert line in str(caught.value)


def test_the_template_of_a_channel_stays_inside_too() -> None:
    before, after = (
        {"metadata": {"name": "c"}, "spec": {"channelTemplate": {"apiVersion": "a/v1", "kind": "X", "spec": {"n": n}}}}
        for n in (1, 2)
    )
    with pytest.raises(InvalidObjectError, match=r"\{v1\.ChannelSpec\}\.ChannelTemplate\.Spec\.Raw:"):
        CHANNEL.validate(after, before, Admission("u", "UPDATE"))


def test_what_is_not_known_of_an_object_is_not_compared() -> None:
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "orders"}
    spec = {"channel": reference, "subscriber": {"uri": "http://x"}}
    SUBSCRIPTION.validate(
        {"metadata": {"name": "s"}, "spec": spec},
        {"metadata": {"name": "s"}, "spec": {**spec, "older": 1}},
        Admission("u", "UPDATE"),
    )
