"""Knative's conformance of a Channel's data plane (rekt, channel/data_plane.go) as far as it speaks of what a channel sends.

Each assertion by its number in the order of the suite, and the test that shows it. A table and not prose, so that a test that is
renamed does not leave its assertion without one. What a channel takes in (CDP-01 to CDP-06, CDP-09 to CDP-15, CDP-23, CDP-24) is
the ingress's, in tests/integration/test_ingress.py.
"""

import ast
import itertools
import json
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from eventing.bindings.http import in_format
from eventing.testing.sinks import Answer, Received, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run, waits

TESTS = Path(__file__).parents[2]
HERE = "integration/delivery"
PROOFS = {
    "CDP-07 MAY re-encode on dispatch": f"{HERE}/test_what_arrives.py::test_the_content_mode_is_kept_or_forced",
    "CDP-16 MUST emit CloudEvents": f"{HERE}/test_conformance.py::test_what_is_sent_is_an_event_to_the_sdk_of_the_field",
    "CDP-17 MUST keep the version": "integration/test_ingress.py::test_the_version_is_never_upgraded",
    "CDP-18 MUST NOT alter events": "integration/test_ingress.py::test_the_version_is_never_upgraded",
    "CDP-19 attributes and data MUST be identical": "integration/test_ingress.py::test_the_version_is_never_upgraded",
    "CDP-20 SHOULD support binary or structured": f"{HERE}/test_what_arrives.py::test_the_content_mode_is_kept_or_forced",
    "CDP-21 MUST send to every ready subscriber": "integration/test_readiness.py::test_through_the_life_of_a_data_plane",
    "CDP-22 MUST send to subscriberUri": f"{HERE}/test_what_arrives.py::test_what_a_subscriber_gets",
    "CDP-25 count of what is sent": f"{HERE}/test_conformance.py::test_what_is_sent_is_counted",
    "CDP-27 MUST pass W3C trace context": f"{HERE}/test_what_arrives.py::test_what_a_subscriber_gets",
    "CDP-28 SHOULD sample as configured": "integration/test_traces.py::test_what_is_not_sampled_is_passed_on_and_not_exported",
    "CDP-29 OpenTelemetry's messaging semantics": "integration/test_traces.py::test_a_span_per_acceptance_and_per_attempt",
    "CDP-30 span attributes": "integration/test_traces.py::test_a_span_per_acceptance_and_per_attempt",
    "CDP-31 SHOULD retry": f"{HERE}/test_retries.py::test_it_is_tried_again_and_delivered",
    "CDP-32 the number of retries": f"{HERE}/test_conformance.py::test_four_subscriptions_with_one_retry",
    # The same suite's lines on retries that are commented out upstream, and what the Broker's asks of a delivery too.
    "retries: the maximum number": f"{HERE}/test_retries.py::test_when_it_is_tried_again",
    "retries: the time in between": f"{HERE}/test_retries.py::test_when_it_is_tried_again",
    "retries: the back-off rate": f"{HERE}/test_retries.py::test_when_it_is_tried_again",
    "BDP-22 one subscriber of several subscriptions": f"{HERE}/test_conformance.py::test_one_subscriber_of_two_subscriptions_gets_it_twice",
    "BDP-24 a malformed reply is a failed delivery": f"{HERE}/test_replies.py::test_a_broken_reply_is_a_broken_answer",
    "BDP-26 a reply not accepted redelivers": f"{HERE}/test_replies.py::test_a_reply_that_nobody_takes_fails_the_whole_delivery_which_is_tried_again",
    "features: a long body arrives once and whole": f"{HERE}/test_conformance.py::test_a_long_reply_arrives_once_and_whole",
    "features: Fibonacci drops": f"{HERE}/test_conformance.py::test_a_subscriber_that_drops_every_fibonacci_numbered_event",
    "legacy: a single header": f"{HERE}/test_what_arrives.py::test_what_a_subscriber_gets",
}  # fmt: skip


@pytest.mark.parametrize("assertion", PROOFS)
def test_each_assertion_has_its_test(assertion: str) -> None:
    file, _, name = PROOFS[assertion].partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((TESTS / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions


@pytest.mark.parametrize("mode", ["json", "binary"])
def test_what_is_sent_is_an_event_to_the_sdk_of_the_field(mode: str) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"))
        sink.script("/", Answer(400, (), b"no"))
        event = in_format(make_event("ä b", b'{"n": 1}', subject="ü", partitionkey="k", time="2026-01-01T00:00:00Z"), mode)
        await mesh.accepted(event)
        await sink.received(1, "/dead")
        for received in sink.requests:
            read = from_http_event(HTTPMessage(headers=dict(received.headers), body=received.body))
            assert (read.get_id(), read.get_source(), read.get_type()) == ("ä b", "/shop", "com.example.order")
            assert (read.get_subject(), read.get_data()) == ("ü", {"n": 1})
            assert read.get_extension("partitionkey") == "k"
            assert (read.get_extension("knativeerrordest") is not None) == (received.path == "/dead")

    run(test)


def test_four_subscriptions_with_one_retry() -> None:
    """The suite's topology, requests and all: createExpectedEventPatterns in channel/topology.go."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        def entry(number: int, *, reply: bool = True) -> dict[str, object]:
            base = f"{sink.url}/{number}"
            replies = f"{base}/reply" if reply else None
            return subscriber(
                f"s{number}", f"{base}/sub", reply=replies, dead_letter=f"{base}/dead", retry=1, backoff_delay="PT0.5S"
            )

        mesh.channel("orders", entry(1, reply=False), entry(2), entry(3), entry(4))
        for number in range(1, 5):
            sink.script(f"/{number}/sub", Answer(500))
            sink.always(f"/{number}/sub", Answer.reply(REPLY))
        sink.script("/3/reply", Answer(500))
        sink.script("/4/reply", Answer(500), Answer(500))
        receipt = await mesh.accepted(make_event())
        ends = [await mesh.ended(receipt, f"s{number}", step=0.1) for number in range(1, 5)]
        assert ends == [("delivered", "")] * 3 + [("dead-lettered", "ReplyFailed")]
        assert {number: [len(sink.at(f"/{number}/{kind}")) for kind in ("sub", "reply", "dead")] for number in range(1, 5)} == {
            1: [2, 0, 0], 2: [2, 1, 0], 3: [2, 2, 0], 4: [2, 2, 1],
        }  # fmt: skip
        assert waits(sink.at("/4/sub")) == waits(sink.at("/4/reply")) == [0.5]
        assert sink.at("/4/dead")[0].event_id == "1"

    run(test)


def test_one_subscriber_of_two_subscriptions_gets_it_twice() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/"), subscriber("t", sink.url + "/"))
        await mesh.accepted(make_event())
        await mesh.quiet()
        assert [received.event_id for received in sink.requests] == ["1", "1"]

    run(test)


def test_a_long_reply_arrives_once_and_whole() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        body = json.dumps({"text": "long " * 10_000}).encode()
        mesh.channel("orders", subscriber("s", sink.url + "/", reply=f"{mesh.url}/default/replies"))
        mesh.channel("replies", subscriber("r", sink.url + "/replies"))
        sink.always("/", Answer.reply(REPLY, body))
        await mesh.accepted(make_event("1", body))
        (reply,) = await sink.received(1, "/replies")
        await mesh.quiet()
        assert (reply.event_id, reply.body) == ("r", body)
        assert [received.body for received in sink.at("/")] == [body]
        assert len(sink.at("/replies")) == 1

    run(test)


def test_a_subscriber_that_drops_every_fibonacci_numbered_event() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        requests = itertools.count(1)
        fibonacci = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89}

        def answer(_received: Received) -> Answer:
            return Answer(503 if next(requests) in fibonacci else 202)

        sink.otherwise(answer)
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=4, backoff_delay="PT0.1S"))
        receipts = [await mesh.accepted(make_event(str(number))) for number in range(50)]
        for receipt in receipts:
            assert await mesh.ended(receipt, step=0.1) == ("delivered", "")
        assert len(sink.ids("/")) == 50

    run(test)


def test_what_is_sent_is_counted() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=2, backoff_delay="PT0S"))
        sink.script("/", Answer(503), Answer(404), Answer.cut(20))
        assert (await mesh.ended(await mesh.accepted(make_event("1"))))[0] == "dropped"
        assert await mesh.ended(await mesh.accepted(make_event("2"))) == ("delivered", "")
        metrics = mesh.worker("s").metrics
        assert {status: sum(counts[:-1]) for status, counts in metrics.answers.items()} == {503: 1, 404: 1, 0: 1, 200: 1}
        assert metrics.ends == {("delivered", ""): 1, ("dropped", "NoDeadLetterSink"): 1}

    run(test)
