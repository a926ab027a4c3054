"""Where did my event go, from the user's side: post, break something, ask.

Every end of an event and every reason that can be reached is reached here: the test at the end compares with what there is.
"""

import gc
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import pytest

from eventing.cli.app import run
from eventing.journal import Journal, Rule
from eventing.journal.documents import Delivery, Match, Trace, Why
from eventing.runtime.mesh import Mesh
from eventing.runtime.way import TIMES
from eventing.testing.sinks import Answer, Sink
from tests.support.mesh_thread import mesh_thread
from tests.support.sink_thread import sink_thread
from tests.support.waiting import eventually

Eventing = Callable[..., str]
SECRET = "pl4nted-s3cret"
REPLY = (("ce-specversion", "1.0"), ("ce-id", "reply"), ("ce-type", "t"), ("ce-source", "/reply"))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh_thread(tmp_path_factory.mktemp("mesh") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with sink_thread() as listening:
        yield listening


@pytest.fixture
def eventing(mesh: Mesh, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Eventing:
    """Run a command line on the mesh and check its exit code (None: any will do); its standard output."""
    monkeypatch.setenv("EVENTING_DATA_DIR", str(mesh.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, code=0: _run(capsys, arguments, code)


def _run(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int | None) -> str:
    capsys.readouterr()
    got = run(list(arguments))
    said = capsys.readouterr()
    assert code in {got, None}, said.out + said.err
    return said.out


def post(mesh: Mesh, channel: str, id_: str | None, data: bytes = b"{}", **headers: Any) -> int:
    parts = urlsplit(mesh.ingress_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    attributes = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "content-type": "application/json"}
    if id_ is not None:
        attributes["ce-id"] = id_
    connection.request("POST", f"/default/{channel}", data, attributes | {k.replace("_", "-"): v for k, v in headers.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def manifest(name: str, subscriber: str, *, reply: str = "", annotations: dict[str, str] | None = None, **delivery: Any) -> str:
    """A channel and its subscription, both of this name, as JSON, which is YAML."""
    channel = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "metadata": {"name": name}}
    if annotations:
        channel["metadata"] = {"name": name, "annotations": annotations}
    spec: dict[str, Any] = {
        "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": name},
        "subscriber": {"uri": subscriber},
        "delivery": {"backoffDelay": "PT0.01S", **delivery},
    }
    if reply:
        spec["reply"] = {"uri": reply}
    subscription = {"apiVersion": "messaging.knative.dev/v1", "kind": "Subscription", "metadata": {"name": name}, "spec": spec}
    return "\n---\n".join(json.dumps(each) for each in (channel, subscription))


def applied(eventing: Eventing, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(text)
    eventing("apply", "-f", str(tmp_path / f"{name}.yaml"))
    eventually(lambda: json.loads(eventing("why", name, "-o", "json"))["ready"] == "True", f"{name} is ready")


def traced(eventing: Eventing, id_: str) -> Match:
    """The one acceptance of the event, as `eventing trace -o json` tells it, checked against the stable shape."""
    trace = msgspec.json.decode(eventing("trace", id_, "-o", "json"), type=Trace)
    (match,) = trace.matches
    return match


def ended(eventing: Eventing, id_: str) -> Delivery:
    """Its delivery, once it has an end."""

    def probe() -> Delivery | None:
        (delivery,) = traced(eventing, id_).deliveries
        return delivery if delivery.state != "pending" else None

    found = eventually(probe, f"{id_} has ended")
    assert found is not None
    return found


def dead_letter(sink: Sink, path: str = "/dls") -> dict[str, Any]:
    return {"deadLetterSink": {"uri": sink.url + path}}


# name of the channel: how the sink answers, the delivery, and what is to be told
ANSWERED: dict[str, tuple[list[Answer], dict[str, Any], str, str]] = {
    "accepted": ([], {}, "delivered", ""),
    "at-the-third": ([Answer(503, body=b"busy"), Answer(404)], {}, "delivered", ""),
    "exhausted": ([Answer(503)] * 3, {"retry": 2, "dls": "/dls"}, "dead-lettered", "Exhausted"),
    "final": ([Answer(400, body=b"no")], {"dls": "/dls"}, "dead-lettered", "NotRetriable"),
    "nowhere": ([Answer(503)], {"retry": 0}, "dropped", "NoDeadLetterSink"),
    "buried-badly": ([Answer(400)], {"retry": 0, "dls": "/refuses"}, "dropped", "DeadLetterFailed"),
}


# name of the channel: where its subscriber is said to be, and how it fails
UNREACHED = {
    "unheard": ("http://127.0.0.1:1/", "ConnectFailed"),
    "metadata": ("http://169.254.169.254/", "AddressDenied"),
    "nameless": ("http://nobody.invalid/", "NameNotResolved"),
}


@pytest.fixture(scope="module")
def all_applied(mesh: Mesh, sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The channels and subscriptions of both tables, in one go."""
    sink.always("/refuses", Answer(400))
    manifests = [manifest(name, url, retry=0) for name, (url, _) in UNREACHED.items()]
    for name, (answers, delivery, _, _) in ANSWERED.items():
        sink.script(f"/{name}", *answers)
        options = {key: value for key, value in delivery.items() if key != "dls"}
        if "dls" in delivery:
            options |= dead_letter(sink, delivery["dls"])
        manifests.append(manifest(name, f"{sink.url}/{name}", **options))
    file = tmp_path_factory.mktemp("manifests") / "all.yaml"
    file.write_text("\n---\n".join(manifests))
    assert run(["apply", "-f", str(file), "--data-dir", str(mesh.data_dir)]) == 0
    with mesh.client() as client:
        for name in (*UNREACHED, *ANSWERED):
            eventually(lambda name=name: client.standing("default", name), f"{name} is in force")  # type: ignore[misc]


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.usefixtures("all_applied")
def test_each_end_and_reason(mesh: Mesh, eventing: Eventing, name: str) -> None:
    answers, _, state, reason = ANSWERED[name]
    assert post(mesh, name, f"{name}-1") == 202
    found = ended(eventing, f"{name}-1")
    assert (found.state, found.reason) == (state, reason)
    statuses = [answer.status for answer in answers] + ([200] if state == "delivered" else [])
    assert [attempt.status for attempt in found.attempts if attempt.number] == statuses
    assert [attempt.number for attempt in found.attempts if attempt.number] == list(range(1, len(statuses) + 1))
    ends = [attempt for attempt in found.attempts if attempt.outcome in {"delivered", "dead-lettered", "dropped"}]
    assert len(ends) == 1, "exactly one end"
    shown = eventing("trace", f"{name}-1")
    assert f"default/{name}  {state}" in shown
    assert all(attempt.decision in shown for attempt in found.attempts)


def test_the_decision_names_its_rule_and_the_answer_is_kept(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    answer = Answer(503, (("content-type", "text/plain"), ("retry-after", "1"), ("set-cookie", SECRET)), b"so \x1b[2J busy")
    sink.script("/ruled", answer, Answer(503, body=b"late"))
    applied(eventing, tmp_path, "ruled", manifest("ruled", f"{sink.url}/ruled", retry=3, backoffPolicy="linear"))
    post(mesh, "ruled", "ruled-1")
    first, second, third = ended(eventing, "ruled-1").attempts
    assert first.decision == "503 → retry 1 of 3 in 1.0 s: the subscriber asked for it by Retry-After"
    assert first.response is not None
    assert first.response.headers == {"content-type": "text/plain", "retry-after": "1"}
    assert first.response.body == "so  [2J busy"
    assert second.decision.startswith("503 → retry 2 of 3 in 0.02")
    assert second.decision.endswith(" s: linear PT0.01S, jitter")
    assert (second.rule, second.retries, second.outcome) == ("Linear", 3, "retrying")
    assert (third.decision, third.response) == ("delivered: 200", None)
    shown = eventing("trace", "ruled-1")
    assert "answered text/plain, retry-after: 1, “so  [2J busy”" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("name", UNREACHED)
@pytest.mark.usefixtures("all_applied")
def test_each_failure_to_connect(mesh: Mesh, eventing: Eventing, name: str) -> None:
    error = UNREACHED[name][1]
    post(mesh, name, f"{name}-1")
    found = ended(eventing, f"{name}-1")
    assert (found.state, found.attempts[0].error.partition(":")[0]) == ("dropped", error)
    assert found.attempts[0].decision.startswith(f"{error} → no more attempts: ")
    assert error in eventing("why", name)


def test_a_redirect_is_not_followed_and_says_where_to(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/moved", Answer(301, (("location", f"/there?token={SECRET}"),)))
    applied(eventing, tmp_path, "moved", manifest("moved", f"{sink.url}/moved"))
    post(mesh, "moved", "moved-1")
    assert ended(eventing, "moved-1").state == "dropped"
    assert "answered location: /there?token=***" in eventing("trace", "moved-1")
    assert "give the address to which it redirects" in eventing("why", "moved")


def test_a_time_out(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/slow", Answer(200, delay_s=60))
    applied(eventing, tmp_path, "slow", manifest("slow", f"{sink.url}/slow", retry=0, timeout="PT0.2S"))
    post(mesh, "slow", "slow-1")
    assert ended(eventing, "slow-1").attempts[0].error == "Timeout: no complete answer in time"


def test_each_attempt_at_the_dead_letter_sink_and_the_reply_address(
    mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path
) -> None:
    sink.always("/patient", Answer(200, REPLY, b"answer"))
    sink.script("/patient-reply", Answer(503), *[Answer(404)] * 2)
    sink.always("/patient-reply", Answer(400))
    sink.script("/patient-dls", Answer(429, body=b"not now"))
    letters = dead_letter(sink, "/patient-dls")
    text = manifest("patient", f"{sink.url}/patient", reply=f"{sink.url}/patient-reply", retry=1, **letters)
    applied(eventing, tmp_path, "patient", text)
    post(mesh, "patient", "patient-1")
    found = ended(eventing, "patient-1")
    told = [(attempt.outcome, attempt.number, attempt.status) for attempt in found.attempts]
    assert told == [
        ("replying", 1, 503), ("retrying", 1, 200), ("replying", 1, 404), ("failed", 2, 200),
        ("burying", 1, 429), ("dead-lettered", 0, 200),
    ]  # fmt: skip
    assert found.attempts[4].decision.startswith("dead-letter sink: 429 → retry 1 of 1 in 0.01")
    assert found.attempts[4].error == "not now"
    assert "reply: 503 → retry 1 of 1 in 0.01" in eventing("trace", "patient-1")


def test_replies_that_nobody_takes(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/replies", Answer(200, REPLY, b"answer"))
    sink.always("/no-reply", Answer(400))
    text = manifest("replies", f"{sink.url}/replies", reply=f"{sink.url}/no-reply", retry=0, **dead_letter(sink))
    applied(eventing, tmp_path, "replies", text)
    post(mesh, "replies", "replies-1")
    found = ended(eventing, "replies-1")
    assert (found.state, found.reason) == ("dead-lettered", "ReplyFailed")
    assert "/no-reply" in found.attempts[0].decision


def test_a_circle(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/circle", Answer(200, REPLY, b""))
    text = manifest("circle", f"{sink.url}/circle", reply=f"{mesh.ingress_url}/default/circle", retry=0)
    applied(eventing, tmp_path, "circle", text)
    post(mesh, "circle", "circle-1")

    def looped() -> list[Delivery]:
        trace = msgspec.json.decode(
            eventing("trace", "reply", "-c", "circle", "-o", "json", code=None), type=Trace
        )  # not there yet: 3
        return [delivery for match in trace.matches for delivery in match.deliveries if delivery.reason == "Loop"]

    (found,) = eventually(looped, "the circle is cut")
    assert found.state == "dropped"


@pytest.mark.parametrize("kind", ["subscription", "channel"])
def test_what_is_pending_when_its_object_goes(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path, kind: str) -> None:
    name = f"{kind}-goes"
    sink.always(f"/{name}", Answer(503))
    applied(eventing, tmp_path, name, manifest(name, f"{sink.url}/{name}", retry=1000, backoffDelay="PT30S"))
    post(mesh, name, f"{name}-1")
    eventually(lambda: traced(eventing, f"{name}-1").deliveries[0].attempts, "it was attempted")
    eventing("delete", kind, name)
    found = ended(eventing, f"{name}-1")
    assert (found.state, found.reason) == ("dropped", f"{kind.capitalize()}Deleted")


@pytest.mark.parametrize("buried", [False, True])
def test_an_overflow(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path, buried: bool) -> None:
    name = f"overflow-{buried}".lower()
    sink.always(f"/{name}", Answer(200, delay_s=60))
    options = dead_letter(sink) if buried else {}
    text = manifest(name, f"{sink.url}/{name}", annotations={"eventing-mesh.dev/journal-data": "omit"}, **options)
    applied(eventing, tmp_path, name, text)
    for number in range(18):
        assert post(mesh, name, f"{name}-{number}", b"x" * 1_000_000) == 202
    ends = {id_: traced(eventing, id_).deliveries[0] for id_ in (f"{name}-{number}" for number in range(18))}
    dropped = eventually(lambda: ended(eventing, f"{name}-10"), "the oldest that is not being attempted has gone")
    assert (dropped.state, dropped.reason) == ("dead-lettered" if buried else "dropped", "Overflow")
    assert ends[f"{name}-0"].state == ends[f"{name}-17"].state == "pending"
    if not buried:
        assert "behind by the channel's bound (" in eventing("why", name)
    assert "lag           16 events, the oldest for " in eventing("why", name)


def test_the_stop_of_the_mesh_is_told_by_the_next_one(
    tmp_path: Path, sink: Sink, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the record on disk: the journal's memory ends with the process."""
    data_dir = tmp_path / "data"
    monkeypatch.setenv("EVENTING_DATA_DIR", str(data_dir))

    def eventing(*arguments: str, code: int = 0) -> str:
        return _run(capsys, arguments, code)

    sink.always("/stopped", Answer(503))
    with mesh_thread(data_dir) as first:
        text = manifest("stopped", f"{sink.url}/stopped", retry=1000, backoffDelay="PT30S")
        applied(eventing, tmp_path, "stopped", text)
        post(first, "stopped", "stopped-1")
        eventually(lambda: traced(eventing, "stopped-1").deliveries[0].attempts, "it was attempted")
        receipt = traced(eventing, "stopped-1").receipt
    with mesh_thread(data_dir):
        for query in ("stopped-1", receipt):
            match = traced(eventing, query)
            (found,) = match.deliveries
            assert (match.kept, match.receipt, found.state, found.reason) == ("disk", receipt, "dropped", "Shutdown")
            assert found.attempts[0].status == 503
        assert "from the record of failures on disk" in eventing("trace", "stopped-1")


def test_every_reason_was_reached() -> None:
    """What is missing here needs a durable channel, or cannot be brought about from outside."""
    reached = {reason for _, _, _, reason in ANSWERED.values() if reason}
    reached |= {"ReplyFailed", "Loop", "SubscriptionDeleted", "ChannelDeleted", "Overflow", "Shutdown"}  # the tests above
    no_reasons = {"Accepted", "Exponential", "Linear", "Immediate", "RetryAfter"}
    assert {rule.reason for rule in Rule} - no_reasons - reached == {"OwnershipLost", "Unsendable"}


# to whom an event is not due, and why


def test_who_was_not_due_and_why(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    name = "due"
    applied(eventing, tmp_path, name, manifest(name, f"{sink.url}/due"))
    subscription = manifest(name, f"{sink.url}/due").split("\n---\n")[1]
    gone, later, unready = (json.loads(subscription) for _ in range(3))
    gone["metadata"]["name"], later["metadata"]["name"], unready["metadata"]["name"] = "due-gone", "due-later", "due-unready"
    unready["spec"]["subscriber"] = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "missing"}}
    applied(eventing, tmp_path, "due-gone", json.dumps(gone))
    eventing("delete", "subscription", "due-gone")
    (tmp_path / "unready.yaml").write_text(json.dumps(unready))
    eventing("apply", "-f", str(tmp_path / "unready.yaml"))

    def removed() -> bool:
        post(mesh, name, "due-probe")
        return all(each.subscription != "default/due-gone" for each in _last(eventing, "due-probe").deliveries)

    eventually(removed, "the data plane has let go of it")
    post(mesh, name, "due-1")
    applied(eventing, tmp_path, "due-later", json.dumps(later))
    match = traced(eventing, "due-1")
    assert [delivery.subscription for delivery in match.deliveries] == ["default/due"]
    assert {each.subscription: each.reason for each in match.not_due} == {
        "default/due-gone": "Removed",
        "default/due-later": "AddedLater",
        "default/due-unready": "NotReady",
    }
    shown = eventing("trace", "due-1")
    assert "default/due-later  not due  it was added to the channel later, at " in shown
    assert "not due  it is not Ready: SubscriberResolveFailed: " in shown
    why = eventing("why", "due-unready")
    assert "not Ready since" in why
    assert "correct spec.subscriber" in why


def _last(eventing: Eventing, id_: str) -> Match:
    return msgspec.json.decode(eventing("trace", id_, "-o", "json"), type=Trace).matches[-1]


def test_an_event_with_nobody_to_go_to(mesh: Mesh, eventing: Eventing, tmp_path: Path) -> None:
    (tmp_path / "lonely.yaml").write_text(manifest("lonely", "http://x/").split("\n---\n")[0])
    eventing("apply", "-f", str(tmp_path / "lonely.yaml"))
    eventually(lambda: post(mesh, "lonely", "lonely-1") == 202, "the channel is there")
    assert "the channel had no subscription then" in eventing("trace", "lonely-1")


# what never came


def test_what_never_came_is_told_with_what_was_refused(mesh: Mesh, eventing: Eventing, tmp_path: Path) -> None:
    (tmp_path / "refusing.yaml").write_text(manifest("refusing", "http://x/").split("\n---\n")[0])
    eventing("apply", "-f", str(tmp_path / "refusing.yaml"))
    eventually(lambda: post(mesh, "refusing", "there") == 202, "the channel is there")
    for _ in range(2):
        assert post(mesh, "refusing", "never", ce_source="") == 400
    assert post(mesh, "refusing", "other", content_type="application/cloudevents+xml") == 415
    assert post(mesh, "nobody-made-this", "elsewhere") == 404
    shown = eventing("trace", "never", "-c", "refusing", code=3)
    assert "No event with the id or receipt never was accepted" in shown
    assert "Requests with this id were refused:" in shown
    assert (
        f"3 requests to default/refusing were refused in the last minute: 2 {TIMES} 400 ce-source: must not be empty; 1 {TIMES} 415"
        in shown
    )
    assert "nobody-made-this" not in shown
    trace = msgspec.json.decode(eventing("trace", "no-such", "-o", "json", code=3), type=Trace)
    assert {(group.channel, group.status) for group in trace.refused_groups} >= {
        ("default/refusing", 400), ("default/refusing", 415), ("/default/nobody-made-this", 404),
    }  # fmt: skip
    assert trace.matches == []


def test_an_id_that_came_twice_is_told_twice_and_data_where_it_is_asked_for(
    mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path
) -> None:
    applied(eventing, tmp_path, "twice", manifest("twice", f"{sink.url}/twice"))
    assert post(mesh, "twice", "twice-1", b"first \x1b[2J") == post(mesh, "twice", "twice-1", b"\xff\x00") == 202
    assert eventing("trace", "twice-1").count("accepted ") == 2
    trace = msgspec.json.decode(eventing("trace", "twice-1", "--data", "-o", "json"), type=Trace)
    assert [match.data.base64 for match in trace.matches] == ["Zmlyc3QgG1sySg==", "/wA="]
    shown = eventing("trace", "twice-1", "--data")
    assert "first \\x1b[2J" in shown
    assert "2 bytes, not text" in shown


@pytest.mark.parametrize("kind", ["Channel", "InMemoryChannel"])
def test_whether_data_is_kept_is_not_left_to_spelling(eventing: Eventing, tmp_path: Path, kind: str) -> None:
    metadata = {"name": "misspelt", "annotations": {"eventing-mesh.dev/journal-data": "omitt"}}
    manifest = {"apiVersion": "messaging.knative.dev/v1", "kind": kind, "metadata": metadata}
    (tmp_path / "misspelt.yaml").write_text(json.dumps(manifest))
    eventing("apply", "-f", str(tmp_path / "misspelt.yaml"), code=1)
    metadata["annotations"] = {"eventing-mesh.dev/journal-data": "omit"}
    (tmp_path / "misspelt.yaml").write_text(json.dumps(manifest))
    eventing("apply", "-f", str(tmp_path / "misspelt.yaml"))


# why


def test_why_says_in_one_screen_how_a_subscription_stands(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.script("/screen", Answer(503, body=b"busy"), Answer(503, body=b"busy"))
    sink.always("/screen", Answer(200))
    applied(eventing, tmp_path, "screen", manifest("screen", f"{sink.url}/screen?key={SECRET}", retry=0))
    assert "All is well" not in eventing("why", "screen"), "nothing was sent"
    assert "has accepted no event in the last 5 minutes" in eventing("why", "screen")
    for number in range(3):
        post(mesh, "screen", f"screen-{number}")
        ended(eventing, f"screen-{number}")
    shown = eventing("why", "default/screen")
    assert len(shown.splitlines()) <= 24, "one screen"
    assert "Ready since " in shown
    assert f"channel default/screen → {sink.url}/screen?key=***" in shown
    assert "3 accepted by the channel, 1 delivered, 2 dropped (NoDeadLetterSink)" in shown
    assert f"2 {TIMES} 503, 1 {TIMES} 200" in shown
    assert ", event screen-1, 503 → no more attempts" in shown
    assert "→ set spec.delivery.deadLetterSink" in shown
    document = msgspec.json.decode(eventing("why", "screen", "-o", "json"), type=Why)
    assert document.ready == "True"
    assert document.standing is not None
    assert (document.standing.pending, document.standing.counts.delivered) == (0, 1)
    assert [finding.severity for finding in document.findings] == ["error", "warning"]


def test_why_of_what_is_not_there(mesh: Mesh, eventing: Eventing, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "scren"]) == 3
    assert 'subscriptions.messaging.knative.dev "scren" not found' in capsys.readouterr().err
    assert run(["why", "a/b/c"]) == 2


# tail


def test_tail_follows_until_it_is_interrupted(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/tailed", lambda received: Answer(503 if received.number % 2 else 200))
    applied(eventing, tmp_path, "tailed", manifest("tailed", f"{sink.url}/tailed"))
    with _tailing(mesh, tmp_path, "--channel", "tailed") as follow:
        follow(lambda: post(mesh, "tailed", "tailed-1", b'{"escape": "\x1b[2J"}'), "accepted ", "retrying ", "delivered ")
        code, out = follow.interrupted()
    lines = [line.split() for line in out.splitlines()]
    assert {line[1] for line in lines} == {"accepted", "retrying", "delivered"}
    assert "tailed-1" in out
    assert '{"escape": "\\x1b[2J"}' in out
    assert "503 → retry 1 of 5 in" in out
    assert "\x1b" not in out
    assert code == 130


def test_tail_for_programs_is_an_object_a_line(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    applied(eventing, tmp_path, "lines", manifest("lines", f"{sink.url}/lines"))
    with _tailing(mesh, tmp_path, "-s", "lines", "-o", "json") as follow:
        follow(lambda: post(mesh, "lines", "lines-1"), "lines-1")
        _, out = follow.interrupted()
    entries = [json.loads(line) for line in out.splitlines()]
    assert {entry["subscription"] for entry in entries} == {"default/lines"}
    assert entries[0]["attempt"]["outcome"] == "delivered"


class _tailing:  # noqa: N801 - reads as a function
    """`eventing tail` in a process of its own."""

    def __init__(self, mesh: Mesh, directory: Path, *arguments: str) -> None:
        self._out = directory / "tail.out"
        command = [sys.executable, "-m", "eventing", "tail", "--data-dir", str(mesh.data_dir), *arguments]
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __call__(self, act: Callable[[], object], *expected: str) -> None:
        """Act, again and again until the follower, which begins at a moment of its own, has told of it."""

        def probe() -> bool:
            act()
            time.sleep(0.3)
            out = self._out.read_text()
            return all(text in out for text in expected)

        eventually(probe, f"tail tells of {expected}")

    def interrupted(self) -> tuple[int, str]:
        self._process.send_signal(2)
        _, errors = self._process.communicate(timeout=20)
        assert errors == b""
        return self._process.returncode, self._out.read_text()

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


# secrets


def test_no_secret_is_kept_or_told(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    """Not in what is answered, and not on disk: credentials of requests, of addresses, and what a subscriber says of them."""
    echo = f'POST /secret?token={SECRET} refused: Authorization: Bearer {SECRET} {{"password": "{SECRET}"}}'.encode()
    sink.always(
        "/secret", Answer(401, (("www-authenticate", SECRET), ("set-cookie", SECRET), ("content-type", "text/plain")), echo)
    )
    url = f"{sink.url}/secret?token={SECRET}"
    applied(eventing, tmp_path, "secrets", manifest("secrets", url, retry=0, **dead_letter(sink, f"/dls?key={SECRET}")))
    headers: dict[str, Any] = {"authorization": f"Bearer {SECRET}", "cookie": f"session={SECRET}", "proxy_authorization": SECRET}
    assert post(mesh, "secrets", "secrets-1", **headers) == 202
    assert post(mesh, f"secrets?token={SECRET}", None, **headers) == 400
    assert post(mesh, f"nothing?token={SECRET}", "secrets-2", **headers) == 404
    assert ended(eventing, "secrets-1").state == "dead-lettered"
    told = eventing("trace", "secrets-1") + eventing("trace", "secrets-1", "-o", "json", "--data")
    told += eventing("trace", "secrets-2", code=3) + eventing("why", "secrets") + eventing("why", "secrets", "-o", "json")
    assert SECRET not in told
    assert "token=***" in told
    assert SECRET not in _memory(), "in the memory of a journal of this process"
    on_disk = b"".join(path.read_bytes() for path in (mesh.data_dir / "journal").glob("*"))
    assert b"secrets-1" in on_disk
    assert SECRET.encode() not in on_disk


def _memory() -> str:
    """All that the journals in this process hold."""
    held = []
    for journal in (each for each in gc.get_objects() if isinstance(each, Journal)):
        held += [bytes(ring).decode("latin-1") for ring in (journal._bytes, journal._details._ring)]
        held += [str(journal.refusals), str(list(journal.places.entries())), str(journal.places._places)]
    assert any("secrets-1" in each for each in held)
    return "".join(held)
