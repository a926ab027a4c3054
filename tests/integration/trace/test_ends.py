"""Where did my event go, from the user's side: post, break something, ask.

Every end of an event and every reason that can be reached is reached here: the test at the end compares with what there is.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventing.cli.app import run
from eventing.journal import Rule
from eventing.journal.documents import Delivery, Trace
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Answer, Sink
from tests.support.loop_thread import mesh_thread
from tests.support.questions import REPLY, Eventing, applied, dead_letter, ended, manifest, post, run_command, traced
from tests.support.waiting import eventually

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
            eventually(lambda name=name: client.standing("default", name)[0], f"{name} is in force")  # type: ignore[misc]


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


@pytest.mark.parametrize("name", UNREACHED)
@pytest.mark.usefixtures("all_applied")
def test_each_failure_to_connect(mesh: Mesh, eventing: Eventing, name: str) -> None:
    error = UNREACHED[name][1]
    post(mesh, name, f"{name}-1")
    found = ended(eventing, f"{name}-1")
    assert (found.state, found.attempts[0].error.partition(":")[0]) == ("dropped", error)
    assert found.attempts[0].decision.startswith(f"{error} → no more attempts: ")
    assert error in eventing("why", name)


def test_a_time_out(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/slow", Answer(200, delay_s=60))
    applied(eventing, tmp_path, "slow", manifest("slow", f"{sink.url}/slow", retry=0, timeout="PT0.2S"))
    post(mesh, "slow", "slow-1")
    assert ended(eventing, "slow-1").attempts[0].error == "Timeout: no complete answer in time"


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
        return run_command(capsys, arguments, code)

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
    reached = {reason for _, _, _, reason in ANSWERED.values() if reason}
    reached |= {"ReplyFailed", "Loop", "SubscriptionDeleted", "ChannelDeleted", "Overflow", "Shutdown"}  # the tests above
    no_reasons = {"Accepted", "Exponential", "Linear", "Immediate", "RetryAfter"}
    assert {rule.reason for rule in Rule} == no_reasons | reached
